//! Reads a description into layers.

use tiny_skia::Color;

use super::shapes::{self, Point};
use super::{COLOURS, Flag, FlagError, Layer};

const MAX_DEPTH: usize = 4;
const MAX_COUNT: u32 = 100;
const MAX_NUMBER: f32 = 1000.0;

type Parsed<T> = Result<T, FlagError>;

/// A word, a number, `;`, `{` or `}`, or nothing at the end.
#[derive(Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    column: usize,
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    depth: usize,
    layers: Vec<Layer>,
}

/// Reads a whole description.
pub(super) fn flag(text: &str) -> Parsed<Flag> {
    let mut parser = Parser { tokens: tokens(text), next: 0, depth: 0, layers: Vec::new() };
    parser.layers("")?;
    Ok(Flag { layers: parser.layers })
}

/// The tokens of a text, and an empty one at its end.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut start = None;
    let mut column = 1;
    let ended = text.char_indices().chain([(text.len(), ' ')]);
    for (at, character) in ended {
        let mark = matches!(character, ';' | '{' | '}');
        if mark || character.is_whitespace() {
            if let Some((from, column)) = start.take() {
                tokens.push(Token { text: &text[from..at], column });
            }
            if mark {
                tokens.push(Token { text: &text[at..=at], column });
            }
        } else if start.is_none() {
            start = Some((at, column));
        }
        column += 1;
    }
    tokens.push(Token { text: "", column: column - 1 });
    tokens
}

impl Token<'_> {
    fn refuse<T>(self, expected: &'static str) -> Parsed<T> {
        let found = match self.text {
            "" => "end of text".to_owned(),
            text => format!("`{text}`"),
        };
        Err(FlagError::Syntax { expected, found, column: self.column })
    }

    fn number(self) -> Option<f32> {
        self.text.parse().ok().filter(|number: &f32| number.abs() <= MAX_NUMBER)
    }

    fn colour(self) -> Option<Color> {
        let [red, green, blue] = match self.text.strip_prefix('#') {
            Some(digits) => hexadecimal(digits)?,
            None => COLOURS.iter().find(|(name, _)| *name == self.text)?.1,
        };
        Some(Color::from_rgba8(red, green, blue, 255))
    }

    /// Proportions such as `1:2:1`, if these are any.
    fn proportions(self) -> Option<Vec<f32>> {
        let part = |text: &str| text.parse().ok().filter(|part| (0.01..=MAX_NUMBER).contains(part));
        self.text.split(':').map(part).collect()
    }
}

fn hexadecimal(digits: &str) -> Option<[u8; 3]> {
    let plain = digits.len() == 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let value = u32::from_str_radix(digits, 16).ok().filter(|_| plain)?;
    let [_, red, green, blue] = value.to_be_bytes();
    Some([red, green, blue])
}

impl<'a> Parser<'a> {
    /// Layers up to a closing token, which is taken too unless it is the end of the text.
    fn layers(&mut self, close: &'static str) -> Parsed<()> {
        loop {
            self.layer()?;
            let token = self.take();
            match token.text {
                ";" => {}
                text if text == close => return Ok(()),
                "" => return token.refuse("`}`"),
                _ => return token.refuse("`;`"),
            }
        }
    }

    fn layer(&mut self) -> Parsed<()> {
        let word = self.take();
        match word.text {
            "plain" => self.shape(|_| Ok(shapes::rect(0.0, 0.0, 1.0, 1.0))),
            "h" => self.bands(|from| shapes::rect(0.0, from, 1.0, 1.0)),
            "v" => self.bands(|from| shapes::rect(from, 0.0, 1.0, 1.0)),
            "diagonal" => self.diagonal(),
            "slash" => self.slash(),
            "cross" => self.cross(),
            "saltire" => self.strokes(&[[(0.0, 0.0), (1.0, 1.0)], [(0.0, 1.0), (1.0, 0.0)]]),
            "triangle" => self.triangle(),
            "border" => self.border(),
            "rect" => self.shape(|parser| {
                let [x, y, width, height] = parser.numbers()?;
                Ok(shapes::rect(x, y, width, height))
            }),
            "poly" => self.shape(|parser| parser.points(3)),
            "line" => self.line(),
            "plus" => {
                self.shape(|parser| Ok(shapes::plus(parser.point()?, parser.number()?, parser.number()?)))
            }
            "disc" => self.shape(|parser| Ok(shapes::disc(parser.point()?, parser.number()?))),
            "ring" => self.ring(),
            "crescent" => self.shape(|parser| {
                let (centre, radius) = (parser.point()?, parser.number()?);
                Ok(shapes::crescent(centre, radius, parser.number_or(0.0)))
            }),
            "star" => self.star(),
            "stars" => self.stars(),
            "grid" => self.grid(),
            "sun" => self.sun(),
            "shield" => self.shield(),
            "eagle" => {
                let one_or_two =
                    |token: Token| token.text.parse().ok().filter(|heads| matches!(heads, 1 | 2));
                let heads = self.read("`1` or `2`", one_or_two)?;
                self.shape(|parser| Ok(shapes::eagle(heads, parser.point()?, parser.number()?)))
            }
            "box" => self.inset(true),
            "canton" => self.inset(false),
            _ => word.refuse("a layer"),
        }
    }

    /// A colour and the outline that it fills.
    fn shape(&mut self, outline: impl FnOnce(&mut Self) -> Parsed<Vec<Point>>) -> Parsed<()> {
        let colour = self.colour()?;
        let outline = outline(self)?;
        self.fill(colour, outline);
        Ok(())
    }

    /// Bands, each painted from its start to the far edge so that no seam shows.
    fn bands(&mut self, from: impl Fn(f32) -> Vec<Point>) -> Parsed<()> {
        let parts = self.parts()?;
        let mut colours = vec![self.colour()?];
        while parts.as_ref().map_or(!self.at_end_of_layer(), |it| colours.len() < it.len()) {
            colours.push(self.colour()?);
        }
        let parts = parts.unwrap_or_else(|| vec![1.0; colours.len()]);
        let total: f32 = parts.iter().sum();
        let mut start = 0.0;
        for (colour, part) in colours.into_iter().zip(parts) {
            self.fill(colour, from(start / total));
            start += part;
        }
        Ok(())
    }

    fn parts(&mut self) -> Parsed<Option<Vec<f32>>> {
        match self.peek().text.starts_with(|first: char| first.is_ascii_digit()) {
            true => self.read("proportions like 1:2:1", Token::proportions).map(Some),
            false => Ok(None),
        }
    }

    fn diagonal(&mut self) -> Parsed<()> {
        let [start, end] = self.direction()?;
        self.shape(|_| Ok(shapes::rect(0.0, 0.0, 1.0, 1.0)))?;
        self.shape(|_| Ok(corners(&[(0.0, start), (1.0, end), (1.0, 1.0), (0.0, 1.0)])))
    }

    fn slash(&mut self) -> Parsed<()> {
        let [start, end] = self.direction()?;
        self.strokes(&[[(0.0, start), (1.0, end)]])
    }

    /// The heights at which a diagonal starts and ends.
    fn direction(&mut self) -> Parsed<[f32; 2]> {
        self.read("`up` or `down`", |token| match token.text {
            "up" => Some([1.0, 0.0]),
            "down" => Some([0.0, 1.0]),
            _ => None,
        })
    }

    fn cross(&mut self) -> Parsed<()> {
        let [x, y] = self.numbers()?;
        self.strokes(&[[(x, 0.0), (x, 1.0)], [(0.0, y), (1.0, y)]])
    }

    /// Pairs of a colour and a width, each for all lines; a sloping line is led past the edges.
    fn strokes(&mut self, lines: &[[(f32, f32); 2]]) -> Parsed<()> {
        self.pairs(|parser, colour, width| {
            for [(x, y), (right, bottom)] in lines {
                let (more_x, more_y) = (right - x, bottom - y);
                let ends = [(x - more_x, y - more_y), (right + more_x, bottom + more_y)];
                parser.layers.push(Layer::Stroke(colour, width, corners(&ends)));
            }
        })
    }

    fn triangle(&mut self) -> Parsed<()> {
        self.pairs(|parser, colour, depth| {
            parser.fill(colour, corners(&[(0.0, 0.0), (depth, 0.5), (0.0, 1.0)]));
        })
    }

    /// One or more pairs of a colour and a number.
    fn pairs(&mut self, each: impl Fn(&mut Self, Color, f32)) -> Parsed<()> {
        loop {
            let (colour, number) = (self.colour()?, self.number()?);
            each(self, colour, number);
            if self.at_end_of_layer() {
                return Ok(());
            }
        }
    }

    /// A frame, as a stroke along the edges of which the outer half is cut off.
    fn border(&mut self) -> Parsed<()> {
        let (colour, width) = (self.colour()?, self.number()?);
        let around = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (1.0, 0.0)];
        self.layers.push(Layer::Stroke(colour, 2.0 * width, corners(&around)));
        Ok(())
    }

    fn line(&mut self) -> Parsed<()> {
        let (colour, width) = (self.colour()?, self.number()?);
        let points = self.points(2)?;
        self.layers.push(Layer::Stroke(colour, width, points));
        Ok(())
    }

    fn ring(&mut self) -> Parsed<()> {
        let (colour, centre) = (self.colour()?, self.point()?);
        let [radius, width] = self.numbers()?;
        let (from, to) = (self.number_or(0.0), self.number_or(360.0));
        self.layers.push(Layer::Stroke(colour, width, shapes::arc(centre, radius, from, to)));
        Ok(())
    }

    fn star(&mut self) -> Parsed<()> {
        let count = self.count()?;
        self.shape(|parser| {
            let (centre, radius) = (parser.point()?, parser.number()?);
            let turn = parser.number_or(0.0);
            let inner = parser.number_or(shapes::usual_inner(count));
            Ok(shapes::star(count, centre, radius, turn, inner))
        })
    }

    fn stars(&mut self) -> Parsed<()> {
        let (count, colour, centre) = (self.count()?, self.colour()?, self.point()?);
        let [ring, radius] = self.numbers()?;
        let (from, to) = (self.number_or(0.0), self.number_or(360.0));
        self.star_at_each(colour, radius, shapes::spread(count, centre, ring, from, to));
        Ok(())
    }

    fn grid(&mut self) -> Parsed<()> {
        let (columns, rows, colour) = (self.count()?, self.count()?, self.colour()?);
        let area = self.numbers()?;
        let radius = self.number()?;
        self.star_at_each(colour, radius, shapes::grid(columns, rows, area));
        Ok(())
    }

    fn star_at_each(&mut self, colour: Color, radius: f32, centres: Vec<Point>) {
        for centre in centres {
            self.fill(colour, shapes::star(5, centre, radius, 0.0, shapes::usual_inner(5)));
        }
    }

    fn sun(&mut self) -> Parsed<()> {
        let (rays, colour, centre) = (self.count()?, self.colour()?, self.point()?);
        let (radius, turn) = (self.number()?, self.number_or(0.0));
        for outline in shapes::sun(rays, centre, radius, turn) {
            self.fill(colour, outline);
        }
        Ok(())
    }

    fn shield(&mut self) -> Parsed<()> {
        let (rim, top) = (self.colour()?, self.colour()?);
        let bottom = if self.peek().colour().is_some() { self.colour()? } else { top };
        let (centre, radius) = (self.point()?, self.number()?);
        self.fill(rim, shapes::shield(centre, radius));
        self.fill(bottom, shapes::shield(centre, radius * 0.8));
        self.fill(top, shapes::chief(centre, radius * 0.8));
        Ok(())
    }

    /// A nested description in a rectangle, which lies in the upper hoist corner unless `placed`.
    fn inset(&mut self, placed: bool) -> Parsed<()> {
        let [x, y] = if placed { [self.fraction()?, self.fraction()?] } else { [0.0, 0.0] };
        let area = [x, y, self.fraction()?, self.fraction()?];
        let open = self.take();
        if open.text != "{" {
            return open.refuse("`{`");
        }
        if self.depth == MAX_DEPTH {
            return open.refuse("at most 4 nested boxes");
        }
        self.depth += 1;
        let outer = std::mem::take(&mut self.layers);
        self.layers("}")?;
        let layers = std::mem::replace(&mut self.layers, outer);
        self.depth -= 1;
        self.layers.push(Layer::Inset(area, Flag { layers }));
        Ok(())
    }

    fn fill(&mut self, colour: Color, outline: Vec<Point>) {
        self.layers.push(Layer::Fill(colour, outline));
    }

    /// At least so many points, up to the end of the layer.
    fn points(&mut self, least: usize) -> Parsed<Vec<Point>> {
        let mut points = Vec::new();
        while points.len() < least || !self.at_end_of_layer() {
            points.push(self.point()?);
        }
        Ok(points)
    }

    fn point(&mut self) -> Parsed<Point> {
        let [x, y] = self.numbers()?;
        Ok(Point::new(x, y))
    }

    fn numbers<const N: usize>(&mut self) -> Parsed<[f32; N]> {
        let mut numbers = [0.0; N];
        for number in &mut numbers {
            *number = self.number()?;
        }
        Ok(numbers)
    }

    fn number(&mut self) -> Parsed<f32> {
        self.read("a number", Token::number)
    }

    /// The next token if it is a number, else another number.
    fn number_or(&mut self, other: f32) -> f32 {
        let number = self.peek().number();
        self.next += usize::from(number.is_some());
        number.unwrap_or(other)
    }

    fn fraction(&mut self) -> Parsed<f32> {
        let within = |number: &f32| (0.0..=1.0).contains(number);
        self.read("a fraction up to 1", |token| token.number().filter(within))
    }

    fn count(&mut self) -> Parsed<u32> {
        let within = |count: &u32| (1..=MAX_COUNT).contains(count);
        self.read("a count from 1 to 100", |token| token.text.parse().ok().filter(within))
    }

    fn colour(&mut self) -> Parsed<Color> {
        self.read("a colour", Token::colour)
    }

    /// Takes a token that must be readable in some way.
    fn read<T>(&mut self, expected: &'static str, reading: impl FnOnce(Token<'a>) -> Option<T>) -> Parsed<T> {
        let token = self.take();
        reading(token).map_or_else(|| token.refuse(expected), Ok)
    }

    fn at_end_of_layer(&self) -> bool {
        matches!(self.peek().text, "" | ";" | "}")
    }

    fn peek(&self) -> Token<'a> {
        // The last token marks the end and stays.
        self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.next += 1;
        token
    }
}

fn corners(points: &[(f32, f32)]) -> Vec<Point> {
    points.iter().map(|(x, y)| Point::new(*x, *y)).collect()
}
