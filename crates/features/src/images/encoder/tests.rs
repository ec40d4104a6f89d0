use super::*;

/// Pixels along a side of what it takes.
const SIZE: usize = 48;
const RED: [f32; 3] = [0.8, -0.9, -0.6];
const WHITE: [f32; 3] = [1.0, 1.0, 1.0];
const BLUE: [f32; 3] = [-1.0, -0.4, 0.3];
const GREEN: [f32; 3] = [-1.0, 0.1, -0.5];
const YELLOW: [f32; 3] = [1.0, 0.7, -0.9];

/// Three bands, from the top or from the left.
fn bands(upright: bool, colours: [[f32; 3]; 3]) -> Vec<f32> {
    let pixels = (0..3 * SIZE * SIZE).map(|i| {
        let (channel, y, x) = (i / (SIZE * SIZE), i / SIZE % SIZE, i % SIZE);
        colours[if upright { x } else { y } * 3 / SIZE][channel]
    });
    pixels.collect()
}

fn centred_cosines(rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let count = rows.len() as f32;
    let mean: Vec<f32> =
        (0..rows[0].len()).map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / count).collect();
    let centred = rows.iter().map(|row| {
        let row: Vec<f32> = row.iter().zip(&mean).map(|(x, mean)| x - mean).collect();
        let norm = dot(&row, &row).sqrt();
        row.iter().map(|x| x / norm).collect()
    });
    let rows: Vec<Vec<f32>> = centred.collect();
    rows.iter().map(|a| rows.iter().map(|b| dot(a, b)).collect()).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn encode(images: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let encoder = ImageEncoder::random(1, &Device::Cpu).unwrap();
    let rows = encoder.encode(&images.concat()).unwrap();
    rows.chunks(encoder.width()).map(<[f32]>::to_vec).collect()
}

#[test]
fn flags_that_look_alike_are_near_each_other() {
    let flags = [
        ("france", bands(true, [BLUE, WHITE, RED])),
        ("italy", bands(true, [GREEN, WHITE, RED])),
        ("netherlands", bands(false, [RED, WHITE, BLUE])),
        ("hungary", bands(false, [RED, WHITE, GREEN])),
        ("russia", bands(false, [WHITE, BLUE, RED])),
        ("mali", bands(true, [GREEN, YELLOW, RED])),
        ("bolivia", bands(false, [RED, YELLOW, GREEN])),
        ("austria", bands(false, [RED, WHITE, RED])),
    ];
    let images: Vec<Vec<f32>> = flags.iter().map(|(_, image)| image.clone()).collect();
    let cosines = centred_cosines(&encode(&images));
    let nearest = |i: usize| {
        let others = (0..flags.len()).filter(|j| *j != i);
        others.max_by(|a, b| cosines[i][*a].total_cmp(&cosines[i][*b])).map(|j| flags[j].0).unwrap()
    };
    assert_eq!([nearest(0), nearest(1)], ["italy", "france"]);
    assert_eq!([nearest(2), nearest(3)], ["hungary", "netherlands"]);
    // The same colours the other way round are another flag.
    assert!(cosines[0][1] > 0.5 && cosines[0][2] < 0.2, "{:?}", cosines[0]);
}

#[test]
fn an_image_does_not_depend_on_its_batch() {
    let images = [bands(true, [BLUE, WHITE, RED]), bands(false, [RED, YELLOW, GREEN])];
    let together = encode(&images);
    for (image, row) in images.iter().zip(&together) {
        let single = &encode(std::slice::from_ref(image))[0];
        assert!(single.iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    assert_eq!(together, encode(&images));
}
