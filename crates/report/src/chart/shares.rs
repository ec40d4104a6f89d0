//! Shares of a whole over epochs, as layers that add up to one.

use maud::{Markup, html};

use super::lines::path;
use super::{Mark, Scale, axes, figure, horizontal, legend, vertical};

/// A named layer: its share at every x.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The name in the legend.
    pub name: String,
    /// Class of its colour.
    pub class: String,
    /// Its shares, from 0 to 1, one for each x.
    pub shares: Vec<f64>,
}

/// Layers stacked over `xs`, the first one at the bottom.
pub fn stacked(id: &str, title: &str, note: &str, x_name: &str, xs: &[f64], layers: &[Layer]) -> Markup {
    let (Some(first), Some(last)) = (xs.first(), xs.last()) else { return html! {} };
    let (x, y) = (horizontal(*first, *last), vertical(Scale::exact(0.0, 100.0)));
    let mut below = vec![0.0; xs.len()];
    let mut areas = Vec::new();
    for layer in layers {
        let above: Vec<f64> =
            below.iter().zip(&layer.shares).map(|(below, share)| below + 100.0 * share).collect();
        let mut outline: Vec<(f64, f64)> = xs.iter().copied().zip(above.iter().copied()).collect();
        outline.extend(xs.iter().copied().zip(below.iter().copied()).rev());
        areas.push((layer, path(&outline, &x, &y)));
        below = above;
    }
    let names = legend(layers.iter().map(|layer| (layer.name.as_str(), layer.class.clone(), Mark::Area)));
    let drawing = html! {
        @for (layer, d) in areas {
            path.fill.edge.(layer.class) d={ (d) "Z" } { title { (layer.name) } }
        }
        (axes(&x, &y, x_name, "share in %"))
    };
    figure(id, title, note, names, &describe(layers), drawing)
}

fn describe(layers: &[Layer]) -> String {
    let of = |layer: &Layer| {
        let at = |share: Option<&f64>| 100.0 * share.copied().unwrap_or_default();
        format!("{} from {:.0} % to {:.0} %", layer.name, at(layer.shares.first()), at(layer.shares.last()))
    };
    let layers: Vec<String> = layers.iter().map(of).collect();
    format!("Shares: {}.", layers.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_stand_on_each_other() {
        let layer = |name: &str, shares: [f64; 2]| Layer {
            name: name.into(),
            class: "s1".into(),
            shares: shares.to_vec(),
        };
        let layers = [layer("a", [0.25, 0.5]), layer("b", [0.75, 0.5])];
        let drawn = stacked("s", "t", "", "epoch", &[1.0, 2.0], &layers).into_string();
        // 0 % is at 194, 100 % at 8.
        assert!(drawn.contains("d=\"M50 147.5L346 101L346 194L50 194Z\""), "{drawn}");
        assert!(drawn.contains("d=\"M50 8L346 8L346 101L50 147.5Z\""), "{drawn}");
        assert!(drawn.contains("a from 25 % to 50 %; b from 75 % to 50 %."));
    }
}
