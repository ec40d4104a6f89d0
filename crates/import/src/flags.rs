//! Flags drawn from a compact text description.
//!
//! A [`Flag`] is parsed from one line of text and drawn to a PNG of any size. The text is a list
//! of layers, separated by `;` and painted one over the other, starting from white:
//!
//! ```text
//! v blue white red                                          France
//! v 1:2:1 green yellow green                                bands with proportions
//! plain white; disc red 0.5 0.5 0.3                         Japan
//! plain blue; cross 0.36 0.5 yellow 0.2                     Sweden
//! plain red; cross 0.36 0.5 white 0.25 navy 0.125           Norway: a cross with a white edge
//! h red white; canton 0.5 0.5 { plain blue; star 5 white 0.5 0.5 0.4 }
//! ```
//!
//! `X`, `W` and `DEPTH` are fractions of the flag's width, `Y` and `H` of its height, both from
//! the upper hoist (left) corner. Radii `R` and stroke widths `T` are fractions of the height, so
//! that discs stay round. Angles are clockwise degrees; `[...]` may be left out and `+` repeats.
//!
//! | layer | meaning |
//! |---|---|
//! | `plain COLOUR` | the whole field |
//! | `h [1:2:1] COLOUR+`, `v [1:2:1] COLOUR+` | bands, from the top or from the hoist |
//! | `diagonal up\|down COLOUR COLOUR` | the parts above and below a diagonal |
//! | `slash up\|down (COLOUR T)+` | stripes along a diagonal, the widest first |
//! | `cross X Y (COLOUR T)+` | arms which meet at X, Y and reach the edges, the widest first |
//! | `saltire (COLOUR T)+` | both diagonals, the widest first |
//! | `triangle (COLOUR DEPTH)+` | triangles on the hoist, the deepest first |
//! | `border COLOUR T` | a frame along the edges |
//! | `rect COLOUR X Y W H` | a rectangle from its upper left corner |
//! | `poly COLOUR (X Y)+` | a filled polygon |
//! | `line COLOUR T (X Y)+` | an open stroke |
//! | `plus COLOUR X Y R T` | a cross with free ends |
//! | `disc COLOUR X Y R` | a disc |
//! | `ring COLOUR X Y R T [FROM TO]` | a circle or an arc of it, from 0 at the top |
//! | `crescent COLOUR X Y R [TURN]` | a crescent, which opens to the fly (right) |
//! | `star N COLOUR X Y R [TURN [INNER]]` | an N-pointed star, one point up |
//! | `stars N COLOUR X Y RING R [FROM TO]` | N five-pointed stars on a circle or an arc |
//! | `grid COLUMNS ROWS COLOUR X Y W H R` | staggered rows of stars: N, N-1, N, ... |
//! | `sun RAYS COLOUR X Y R [TURN]` | a disc with separate rays |
//! | `shield RIM TOP [BOTTOM] X Y R` | a stand-in for a coat of arms |
//! | `eagle HEADS COLOUR X Y R` | a spread eagle with one or two heads |
//! | `box X Y W H { ... }`, `canton W H { ... }` | a description inside a rectangle, cut at it |
//!
//! A colour is `#rrggbb` or one of the names in [`COLOURS`].
//!
//! The drawings are simplified: all flags share the proportions of the image, coats of arms
//! become a small shield or a few plain shapes in their main colours, and writing becomes strokes.

mod parse;
mod shapes;

use std::str::FromStr;

use shapes::Point;
use tiny_skia::{Color, FillRule, Paint, Path, PathBuilder, Pixmap, PixmapPaint, Stroke, Transform};

/// The width at which flags are drawn unless another is asked for.
pub const DEFAULT_WIDTH: u32 = 96;
/// The height at which flags are drawn unless another is asked for.
pub const DEFAULT_HEIGHT: u32 = 64;
/// The largest width or height that can be drawn.
const MAX_SIDE: u32 = 4096;

/// The named colours, each with its red, green and blue.
pub const COLOURS: [(&str, [u8; 3]); 22] = [
    ("white", [255, 255, 255]),
    ("silver", [200, 204, 208]),
    ("grey", [130, 136, 142]),
    ("black", [0, 0, 0]),
    ("red", [210, 16, 52]),
    ("bright-red", [238, 28, 37]),
    ("dark-red", [164, 0, 29]),
    ("maroon", [128, 20, 50]),
    ("orange", [255, 130, 0]),
    ("gold", [252, 181, 20]),
    ("yellow", [252, 221, 9]),
    ("pale-yellow", [250, 232, 140]),
    ("light-green", [80, 175, 50]),
    ("green", [0, 140, 69]),
    ("dark-green", [0, 86, 50]),
    ("turquoise", [0, 160, 185]),
    ("light-blue", [100, 176, 226]),
    ("azure", [0, 125, 200]),
    ("blue", [0, 71, 171]),
    ("navy", [1, 33, 105]),
    ("purple", [110, 44, 145]),
    ("brown", [125, 75, 35]),
];

/// Why a description could not be read or a flag could not be drawn.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlagError {
    /// A token of the description is not one that may stand in its place.
    #[error("expected {expected}, found {found} at column {column}")]
    Syntax {
        /// What may stand there.
        expected: &'static str,
        /// The token, in backticks, or `end of text`.
        found: String,
        /// The column of the token's first character, from 1.
        column: usize,
    },
    /// No image of this size can be drawn.
    #[error("cannot draw a flag of {width}x{height} pixels")]
    Size {
        /// The width that was asked for.
        width: u32,
        /// The height that was asked for.
        height: u32,
    },
    /// The drawn image could not be written as a PNG.
    #[error("cannot encode the flag: {0}")]
    Encode(String),
}

/// A flag, read from its description (see the [module](self) for the language).
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    layers: Vec<Layer>,
}

/// One painting step; every word of the language comes down to these.
#[derive(Debug, Clone, PartialEq)]
enum Layer {
    Fill(Color, Vec<Point>),
    Stroke(Color, f32, Vec<Point>),
    /// A flag inside the rectangle x, y, width, height.
    Inset([f32; 4], Flag),
}

impl FromStr for Flag {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        parse::flag(text)
    }
}

impl Flag {
    /// Draws the flag as a PNG; the same flag and size always give the same bytes.
    ///
    /// # Errors
    ///
    /// [`FlagError::Size`] when a side is zero or above 4096 pixels, and [`FlagError::Encode`]
    /// when the PNG cannot be written.
    pub fn draw_png(&self, width: u32, height: u32) -> Result<Vec<u8>, FlagError> {
        self.draw(width, height)?.encode_png().map_err(|error| FlagError::Encode(error.to_string()))
    }

    /// Draws the flag over white.
    fn draw(&self, width: u32, height: u32) -> Result<Pixmap, FlagError> {
        let mut pixmap = blank(width, height)?;
        pixmap.fill(Color::WHITE);
        self.paint(&mut pixmap)?;
        Ok(pixmap)
    }

    fn paint(&self, pixmap: &mut Pixmap) -> Result<(), FlagError> {
        self.layers.iter().try_for_each(|layer| layer.paint(pixmap))
    }
}

impl Layer {
    fn paint(&self, pixmap: &mut Pixmap) -> Result<(), FlagError> {
        let same = Transform::identity();
        match self {
            Layer::Fill(colour, points) => {
                if let Some(path) = path(pixmap, points, true) {
                    pixmap.fill_path(&path, &paint(*colour), FillRule::Winding, same, None);
                }
            }
            Layer::Stroke(colour, width, points) => {
                if let Some(path) = path(pixmap, points, false) {
                    let width = width * pixmap.height() as f32;
                    let stroke = Stroke { width, ..Stroke::default() };
                    pixmap.stroke_path(&path, &paint(*colour), &stroke, same, None);
                }
            }
            Layer::Inset([x, y, width, height], flag) => {
                let (across, down) = (pixmap.width() as f32, pixmap.height() as f32);
                let (left, top) = ((x * across).round(), (y * down).round());
                let right = ((x + width) * across).round().max(left + 1.0);
                let bottom = ((y + height) * down).round().max(top + 1.0);
                let mut inner = blank((right - left) as u32, (bottom - top) as u32)?;
                flag.paint(&mut inner)?;
                let plain = PixmapPaint::default();
                pixmap.draw_pixmap(left as i32, top as i32, inner.as_ref(), &plain, same, None);
            }
        }
        Ok(())
    }
}

/// A transparent image.
fn blank(width: u32, height: u32) -> Result<Pixmap, FlagError> {
    let small = width <= MAX_SIDE && height <= MAX_SIDE;
    let pixmap = if small { Pixmap::new(width, height) } else { None };
    pixmap.ok_or(FlagError::Size { width, height })
}

fn paint(colour: Color) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    paint.set_color(colour);
    paint
}

/// The points in pixels; `None` when they span no area.
fn path(pixmap: &Pixmap, points: &[Point], close: bool) -> Option<Path> {
    let (width, height) = (pixmap.width() as f32, pixmap.height() as f32);
    let mut path = PathBuilder::new();
    for (index, point) in points.iter().enumerate() {
        let (x, y) = point.pixel(width, height);
        if index == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    if close {
        path.close();
    }
    path.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = include_str!("../../../data/nations/flags.tsv");

    /// The colour at a fraction of the width and height of a 96x64 drawing.
    fn pixel(flag: &str, x: f32, y: f32) -> [u8; 3] {
        let pixmap = flag.parse::<Flag>().unwrap().draw(DEFAULT_WIDTH, DEFAULT_HEIGHT).unwrap();
        let pixel = pixmap.pixel((x * 96.0) as u32, (y * 64.0) as u32).unwrap();
        [pixel.red(), pixel.green(), pixel.blue()]
    }

    fn listed(key: &str) -> &'static str {
        let mut lines = ALL.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(other, _)| *other == key).unwrap().1
    }

    #[track_caller]
    fn check(flag: &str, points: &[(f32, f32, &str)]) {
        for (x, y, colour) in points {
            let expected = pixel(&format!("plain {colour}"), 0.5, 0.5);
            assert_eq!(pixel(flag, *x, *y), expected, "{flag}: {x} {y}");
        }
    }

    #[track_caller]
    fn fails(flag: &str, message: &str) {
        assert_eq!(flag.parse::<Flag>().unwrap_err().to_string(), message);
    }

    #[test]
    fn errors_name_the_token_and_its_column() {
        fails("", "expected a layer, found end of text at column 1");
        fails("h red; squiggle red", "expected a layer, found `squiggle` at column 8");
        fails("h red wite", "expected a colour, found `wite` at column 7");
        fails("plain red blue", "expected `;`, found `blue` at column 11");
        fails("plain #12345g", "expected a colour, found `#12345g` at column 7");
        fails("h 1:2:1 red white", "expected a colour, found end of text at column 18");
        fails("v 1:x red white", "expected proportions like 1:2:1, found `1:x` at column 3");
        fails("disc red 0.5 0.5", "expected a number, found end of text at column 17");
        fails("disc red NaN 0.5 1", "expected a number, found `NaN` at column 10");
        fails("star 101 red 0 0 1", "expected a count from 1 to 100, found `101` at column 6");
        fails("eagle 3 red 0 0 1", "expected `1` or `2`, found `3` at column 7");
        fails("slash left red 1", "expected `up` or `down`, found `left` at column 7");
        fails("canton 0.5 2 { plain red }", "expected a fraction up to 1, found `2` at column 12");
        fails("canton 0.5 0.5 { plain red", "expected `}`, found end of text at column 27");
        fails("plain red }", "expected `;`, found `}` at column 11");
        let deep = "canton 1 1 {".repeat(5);
        fails(&deep, "expected at most 4 nested boxes, found `{` at column 60");
    }

    #[test]
    fn bands_crosses_and_discs_lie_where_they_should() {
        let france = [(0.1, 0.5, "#0055a4"), (0.5, 0.5, "white"), (0.9, 0.5, "#ef4135")];
        check(listed("France"), &france);
        let japan = [(0.5, 0.5, "#bc002d"), (0.5, 0.1, "white"), (0.2, 0.5, "white")];
        check(listed("Japan"), &japan);
        let sweden = [(0.36, 0.1, "#fecc00"), (0.9, 0.5, "#fecc00"), (0.7, 0.2, "#006aa7")];
        check(listed("Sweden"), &sweden);
        let switzerland = [(0.5, 0.5, "white"), (0.5, 0.25, "white"), (0.5, 0.1, "#da291c")];
        check(listed("Switzerland"), &switzerland);
        check("v 1:2:1 red white blue", &[(0.2, 0.5, "red"), (0.7, 0.5, "white")]);
        assert_eq!(pixel("plain red", 0.5, 0.5), COLOURS[4].1);
    }

    #[test]
    fn later_layers_cover_earlier_ones() {
        let united_kingdom = [(0.5, 0.1, "#c8102e"), (0.25, 0.08, "#012169"), (0.42, 0.1, "white")];
        check(listed("United_Kingdom"), &united_kingdom);
        let stripes = [(0.9, 0.02, "#b22234"), (0.9, 0.12, "white"), (0.02, 0.98, "#b22234")];
        check(listed("United_States"), &stripes);
        let canton = [(0.005, 0.01, "#3c3b6e"), (0.39, 0.5, "#3c3b6e"), (0.41, 0.5, "#b22234")];
        check(listed("United_States"), &canton);
        let cut = "h blue; canton 0.5 0.5 { disc red 0.5 0.5 9 }";
        check(cut, &[(0.4, 0.4, "red"), (0.6, 0.4, "blue"), (0.4, 0.6, "blue")]);
    }

    #[test]
    fn the_same_flag_gives_the_same_bytes() {
        let draw = || listed("Brazil").parse::<Flag>().unwrap().draw_png(48, 32).unwrap();
        assert_eq!(draw(), draw());
        assert_eq!(Pixmap::decode_png(&draw()).unwrap().width(), 48);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let flag: Flag = "plain red".parse().unwrap();
        assert_eq!(flag.draw_png(0, 64), Err(FlagError::Size { width: 0, height: 64 }));
        assert!(flag.draw_png(96, 5000).is_err());
    }

    #[test]
    fn every_flag_of_the_dataset_is_drawn_and_differs() {
        let mut seen = std::collections::BTreeMap::new();
        let mut lines = ALL.lines();
        assert_eq!(lines.next(), Some("key\tflag"));
        for (key, flag) in lines.map(|line| line.split_once('\t').unwrap()) {
            let flag: Flag = flag.parse().unwrap_or_else(|error| panic!("{key}: {error}"));
            let png = flag.draw_png(DEFAULT_WIDTH, DEFAULT_HEIGHT).unwrap();
            assert_eq!(seen.insert(png, key), None, "{key} looks like another flag");
        }
        assert_eq!(seen.len(), 195);
    }
}
