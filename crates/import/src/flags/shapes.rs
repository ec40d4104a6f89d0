//! The outlines that the words of the language stand for.

/// A place on the flag: fractions of its width and height, then a shift in heights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    x: f32,
    y: f32,
    right: f32,
    down: f32,
}

/// Half an eagle below its head, from the neck to the tail, for a radius of one.
#[rustfmt::skip]
const EAGLE: [(f32, f32); 18] = [
    (0.22, -0.45), (0.45, -0.8), (0.95, -0.75), (0.82, -0.55), (1.0, -0.45), (0.82, -0.3),
    (0.95, -0.12), (0.75, -0.05), (0.82, 0.15), (0.55, 0.15), (0.28, 0.3), (0.6, 0.55),
    (0.45, 0.65), (0.2, 0.5), (0.32, 0.85), (0.15, 0.8), (0.1, 0.98), (0.0, 0.9),
];
const ONE_HEAD: [(f32, f32); 4] = [(0.0, -1.0), (0.14, -0.92), (0.18, -0.75), (0.1, -0.6)];
const TWO_HEADS: [(f32, f32); 5] = [(0.0, -0.6), (0.1, -0.9), (0.22, -1.0), (0.42, -0.85), (0.24, -0.75)];
const SHIELD: [(f32, f32); 5] = [(0.0, -1.0), (0.8, -1.0), (0.8, 0.1), (0.5, 0.7), (0.0, 1.0)];

impl Point {
    pub(super) fn new(x: f32, y: f32) -> Self {
        Point { x, y, right: 0.0, down: 0.0 }
    }

    /// The point at a distance, in heights.
    fn shifted(self, right: f32, down: f32) -> Self {
        Point { right: self.right + right, down: self.down + down, ..self }
    }

    /// The point at a distance along an angle, clockwise from the top.
    fn polar(self, radius: f32, degrees: f32) -> Self {
        let (sine, cosine) = degrees.to_radians().sin_cos();
        self.shifted(radius * sine, -radius * cosine)
    }

    pub(super) fn pixel(self, width: f32, height: f32) -> (f32, f32) {
        (self.x * width + self.right * height, (self.y + self.down) * height)
    }
}

pub(super) fn rect(x: f32, y: f32, width: f32, height: f32) -> Vec<Point> {
    let corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)];
    corners.map(|(x, y)| Point::new(x, y)).to_vec()
}

/// Points along a circle, at most three degrees apart.
pub(super) fn arc(centre: Point, radius: f32, from: f32, to: f32) -> Vec<Point> {
    let steps = ((to - from).abs() / 3.0).ceil().max(1.0);
    (0..=steps as u32).map(|step| centre.polar(radius, from + (to - from) * step as f32 / steps)).collect()
}

pub(super) fn disc(centre: Point, radius: f32) -> Vec<Point> {
    arc(centre, radius, 0.0, 360.0)
}

/// A disc less a smaller one, 0.8 of its radius and shifted by 0.25, as on the flag of Turkey.
pub(super) fn crescent(centre: Point, radius: f32, turn: f32) -> Vec<Point> {
    const INNER: f32 = 0.8;
    const SHIFT: f32 = 0.25;
    let meet = (1.0 + SHIFT * SHIFT - INNER * INNER) / (2.0 * SHIFT);
    let outer_gap = meet.acos().to_degrees();
    let inner_gap = ((meet - SHIFT) / INNER).acos().to_degrees();
    let open = 90.0 + turn;
    let hole = centre.polar(radius * SHIFT, open);
    let mut points = arc(centre, radius, open + outer_gap, open + 360.0 - outer_gap);
    points.extend(arc(hole, radius * INNER, open + 360.0 - inner_gap, open + inner_gap));
    points
}

/// A star whose inner corners lie at `inner` of the radius.
pub(super) fn star(count: u32, centre: Point, radius: f32, turn: f32, inner: f32) -> Vec<Point> {
    let half = 180.0 / count as f32;
    (0..2 * count)
        .map(|corner| {
            let reach = if corner % 2 == 0 { radius } else { radius * inner };
            centre.polar(reach, turn + half * corner as f32)
        })
        .collect()
}

/// The inner corners of a star with straight lines between its points, or else of half the radius.
pub(super) fn usual_inner(count: u32) -> f32 {
    match count {
        5 => 0.382,
        6 => 0.577,
        _ => 0.5,
    }
}

/// Centres spread evenly over a circle, or over an arc including both its ends.
pub(super) fn spread(count: u32, centre: Point, radius: f32, from: f32, to: f32) -> Vec<Point> {
    let gaps = if to - from >= 360.0 { count } else { (count - 1).max(1) };
    let step = (to - from) / gaps as f32;
    (0..count).map(|index| centre.polar(radius, from + step * index as f32)).collect()
}

/// Centres in rows, every second one with one fewer.
pub(super) fn grid(columns: u32, rows: u32, area: [f32; 4]) -> Vec<Point> {
    let [x, y, width, height] = area;
    let across = width / (columns - 1).max(1) as f32;
    let down = height / (rows - 1).max(1) as f32;
    let mut centres = Vec::new();
    for row in 0..rows {
        let odd = row % 2;
        for column in 0..columns - odd.min(columns) {
            let left = x + across * (column as f32 + 0.5 * odd as f32);
            centres.push(Point::new(left, y + down * row as f32));
        }
    }
    centres
}

/// The disc of a sun and its rays.
pub(super) fn sun(rays: u32, centre: Point, radius: f32, turn: f32) -> Vec<Vec<Point>> {
    let step = 360.0 / rays as f32;
    let ray = |index: u32| {
        let angle = turn + step * index as f32;
        let foot = |side: f32| centre.polar(radius * 0.65, angle + side * step * 0.35);
        vec![centre.polar(radius, angle), foot(1.0), foot(-1.0)]
    };
    std::iter::once(disc(centre, radius * 0.56)).chain((0..rays).map(ray)).collect()
}

/// A cross of a reach and a thickness.
pub(super) fn plus(centre: Point, reach: f32, thickness: f32) -> Vec<Point> {
    let half = thickness / 2.0;
    let quarter = [(half, -reach), (half, -half), (reach, -half)];
    let turns = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)];
    let turned = turns.iter().flat_map(|(cosine, sine)| {
        quarter.map(|(x, y)| centre.shifted(x * cosine - y * sine, x * sine + y * cosine))
    });
    turned.collect()
}

pub(super) fn eagle(heads: u32, centre: Point, radius: f32) -> Vec<Point> {
    let head = if heads == 1 { &ONE_HEAD[..] } else { &TWO_HEADS[..] };
    mirrored(&[head, &EAGLE].concat(), centre, radius)
}

pub(super) fn shield(centre: Point, radius: f32) -> Vec<Point> {
    mirrored(&SHIELD, centre, radius)
}

/// The upper half of a shield.
pub(super) fn chief(centre: Point, radius: f32) -> Vec<Point> {
    mirrored(&[(0.0, -1.0), (0.8, -1.0), (0.8, 0.0), (0.0, 0.0)], centre, radius)
}

/// A half outline, from top to bottom, and its mirror image.
fn mirrored(half: &[(f32, f32)], centre: Point, radius: f32) -> Vec<Point> {
    let right = half.iter().map(|(x, y)| (*x, *y));
    let left = half.iter().rev().map(|(x, y)| (-*x, *y));
    right.chain(left).map(|(x, y)| centre.shifted(x * radius, y * radius)).collect()
}
