//! Colours, marks and legends that every plot shares.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

pub(crate) const INK: RGBColor = RGBColor(27, 35, 48);
pub(crate) const MUTED: RGBColor = RGBColor(93, 104, 121);
pub(crate) const GRID: RGBColor = RGBColor(236, 239, 243);
/// Of networks, techniques, formats; the same as on the page.
pub(crate) const COLOURS: [RGBColor; 8] = [
    RGBColor(37, 99, 201),
    RGBColor(210, 84, 27),
    RGBColor(22, 132, 106),
    RGBColor(138, 63, 192),
    RGBColor(184, 134, 11),
    RGBColor(194, 47, 109),
    RGBColor(75, 106, 134),
    RGBColor(91, 125, 30),
];

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type Drawn<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Draws a mark, hollow or filled.
pub(crate) fn draw_mark(area: &Area<'_>, (x, y): (i32, i32), shape: usize, colour: RGBAColor, hollow: bool) -> Drawn {
    let styles: &[ShapeStyle] = if hollow { &[WHITE.filled(), colour.stroke_width(2)] } else { &[colour.filled()] };
    let polygon = |corners: &[(i32, i32)], style: &ShapeStyle| {
        let mut corners: Vec<(i32, i32)> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        if style.filled {
            return area.draw(&Polygon::new(corners, *style));
        }
        corners.extend_from_within(..1);
        area.draw(&PathElement::new(corners, *style))
    };
    for style in styles {
        match shape % 5 {
            0 => area.draw(&Circle::new((x, y), 6, *style))?,
            1 => area.draw(&Rectangle::new([(x - 5, y - 5), (x + 5, y + 5)], *style))?,
            2 => polygon(&[(0, -7), (7, 5), (-7, 5)], style)?,
            3 => polygon(&[(0, -8), (8, 0), (0, 8), (-8, 0)], style)?,
            _ => polygon(&[(-7, -3), (0, 7), (7, -3)], style)?,
        }
    }
    Ok(())
}

/// Draws a line through pixels.
pub(crate) fn draw_line(area: &Area<'_>, points: Vec<(i32, i32)>, colour: RGBAColor, dashed: bool) -> Drawn {
    if dashed {
        area.draw(&DashedPathElement::new(points, 6, 4, colour.stroke_width(2)))?;
    } else {
        area.draw(&PathElement::new(points, colour.stroke_width(2)))?;
    }
    Ok(())
}

/// What a name of a legend stands beside.
#[derive(Clone, Copy)]
pub(crate) enum Sign {
    /// A filled mark of this shape.
    Mark(usize, RGBColor),
    /// A hollow one.
    Hollow(usize, RGBColor),
    /// A line, dashed or not.
    Line(RGBAColor, bool),
    /// A bar.
    Bar(RGBAColor),
}

/// Draws a legend from `start`, in as many rows as it takes to stay left of `right`, and returns where what
/// is below it may begin.
pub(crate) fn draw_legend<'a>(
    area: &Area<'_>,
    entries: impl Iterator<Item = (&'a str, Sign)>,
    start: (i32, i32),
    right: i32,
) -> Drawn<u32> {
    const ROW: i32 = 22;
    let (mut x, mut y) = start;
    for (name, sign) in entries {
        let lead = if matches!(sign, Sign::Line(..)) { 27 } else { 13 };
        // No font is loaded: the width is a guess on the safe side.
        let width = lead + i32::try_from(name.chars().count()).unwrap_or(right).min(right) * 7;
        if x > start.0 && x + width > right {
            (x, y) = (start.0, y + ROW);
        }
        match sign {
            Sign::Mark(shape, colour) => draw_mark(area, (x, y), shape, colour.into(), false)?,
            Sign::Hollow(shape, colour) => draw_mark(area, (x, y), shape, colour.into(), true)?,
            Sign::Line(colour, dashed) => draw_line(area, vec![(x, y), (x + 20, y)], colour, dashed)?,
            Sign::Bar(colour) => area.draw(&Rectangle::new([(x - 6, y - 6), (x + 6, y + 6)], colour.filled()))?,
        }
        area.draw(&Text::new(name.to_owned(), (x + lead, y - 8), ("sans-serif", 14).into_font().color(&INK)))?;
        x += width + 24;
    }
    Ok(u32::try_from(y + ROW).unwrap_or(0))
}
