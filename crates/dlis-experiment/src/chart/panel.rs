//! One panel: title, notes, axes, and what is drawn over them.

use plotters::prelude::*;

use super::style::draw_line;
use super::{Area, Axis, COLOURS, Content, Drawn, GRID, Group, INK, Kind, MUTED, Panel, Series, draw_mark};

/// Letters of a note that fit in a panel's width.
const NOTE_LETTERS: usize = 58;
const NOTE_HEIGHT: i32 = 15;
const AXIS: RGBColor = RGBColor(190, 197, 207);

pub(super) fn draw(area: &Area<'_>, panel: &Panel) -> Drawn {
    let title = ("sans-serif", 15).into_font().style(FontStyle::Bold).color(&INK);
    area.draw(&Text::new(panel.title.clone(), (20, 4), title))?;
    let mut notes: Vec<String> = panel.notes.iter().flat_map(|note| wrap(note, NOTE_LETTERS)).collect();
    if panel.content.is_empty() {
        notes.push("nothing to draw".to_owned());
    }
    let mut y = 26;
    for note in &notes {
        area.draw(&Text::new(note.clone(), (20, y), ("sans-serif", 12).into_font().color(&MUTED)))?;
        y += NOTE_HEIGHT;
    }
    if panel.content.is_empty() {
        return Ok(());
    }
    let (_, below) = area.split_vertically(y.min(150));
    match &panel.content {
        Content::Lines { x, y, series, rule } => draw_lines(&below, *x, *y, series, *rule),
        Content::Bars { y, groups } => draw_bars(&below, *y, groups),
    }
}

/// Breaks a text at spaces into lines of about this many letters.
fn wrap(text: &str, letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= letters => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn draw_lines(
    area: &Area<'_>,
    (x_kind, x_title): (Kind, &str),
    (y_kind, y_title): (Kind, &str),
    series: &[Series],
    rule: Option<f64>,
) -> Drawn {
    let points = || series.iter().flat_map(|series| series.points.iter().copied());
    let x_axis = Axis::new(x_kind, points().map(|point| point[0]));
    let y_axis = Axis::new(y_kind, points().map(|point| point[1]).chain(rule));
    let mut chart = ChartBuilder::on(area)
        .margin_right(22)
        .margin_top(6)
        .margin_bottom(8)
        .margin_left(4)
        .x_label_area_size(42)
        .y_label_area_size(68)
        .build_cartesian_2d(x_axis.scale(), y_axis.scale())?;
    chart
        .configure_mesh()
        .x_desc(x_title)
        .y_desc(y_title)
        .axis_desc_style(("sans-serif", 13).into_font().color(&INK))
        .label_style(("sans-serif", 12).into_font().color(&MUTED))
        .x_label_formatter(&|at| x_axis.label(*at))
        .y_label_formatter(&|at| y_axis.label(*at))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .draw()?;
    let place = |[x, y]: [f64; 2]| chart.backend_coord(&(x_axis.at(x), y_axis.at(y)));
    // Pixels of the picture, to pixels of this panel.
    let (left, top) = area.get_base_pixel();
    let local = |point| {
        let (x, y) = place(point);
        (x - left, y - top)
    };
    if let Some(rule) = rule {
        let (x0, x1) = (x_axis.scale_ends().0, x_axis.scale_ends().1);
        let ends = [x0, x1].map(|x| {
            let (px, py) = chart.backend_coord(&(x, y_axis.at(rule)));
            (px - left, py - top)
        });
        draw_line(area, ends.to_vec(), INK.mix(0.5), true)?;
    }
    for series in series {
        let colour = COLOURS[series.colour % COLOURS.len()];
        let places: Vec<(i32, i32)> = series.points.iter().copied().map(local).collect();
        if series.joined && places.len() > 1 {
            draw_line(area, places.clone(), colour.mix(0.8), series.quoted)?;
        }
        for place in places {
            draw_mark(area, place, series.shape, colour.into(), series.quoted)?;
        }
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "drawn to the pixel")]
fn draw_bars(area: &Area<'_>, (kind, title): (Kind, &str), groups: &[Group]) -> Drawn {
    let values = groups.iter().flat_map(|group| &group.bars).filter_map(|bar| bar.value);
    let axis = Axis::from_zero(kind, values);
    let count = groups.len().max(1) as f64;
    let mut chart = ChartBuilder::on(area)
        .margin_right(14)
        .margin_top(6)
        .margin_bottom(8)
        .margin_left(4)
        .x_label_area_size(30)
        .y_label_area_size(68)
        .build_cartesian_2d(0.0..count, axis.scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_desc(title)
        .axis_desc_style(("sans-serif", 13).into_font().color(&INK))
        .label_style(("sans-serif", 12).into_font().color(&MUTED))
        .y_label_formatter(&|at| axis.label(*at))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .draw()?;
    let (left, top) = area.get_base_pixel();
    let local = |x: f64, y: f64| {
        let (x, y) = chart.backend_coord(&(x, y));
        (x - left, y - top)
    };
    for (index, group) in groups.iter().enumerate() {
        let start = index as f64;
        let slot = 0.84 / group.bars.len().max(1) as f64;
        for (at, bar) in group.bars.iter().enumerate() {
            let from = start + 0.08 + slot * at as f64;
            if let Some(value) = bar.value {
                let (x0, y0) = local(from, 0.0);
                let (x1, y1) = local(from + slot * 0.92, value);
                let style = COLOURS[bar.colour % COLOURS.len()].filled();
                area.draw(&Rectangle::new([(x0, y1.min(y0 - 1)), (x1, y0)], style))?;
            }
        }
        let (middle, floor) = local(start + 0.5, 0.0);
        let known = group.bars.iter().any(|bar| bar.value.is_some());
        // Without a font the width of a word is a guess: six pixels a letter.
        let centred = |text: &str, y: i32, colour: RGBColor| {
            let x = middle - 3 * i32::try_from(text.chars().count()).unwrap_or(0);
            area.draw(&Text::new(text.to_owned(), (x, y), ("sans-serif", 12).into_font().color(&colour)))
        };
        centred(&group.name, floor + 8, INK)?;
        if !known {
            centred("not measured", floor - 18, MUTED)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_broken_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("a-word-that-is-too-long b", 5), ["a-word-that-is-too-long", "b"]);
        assert!(wrap("", 5).is_empty());
    }
}
