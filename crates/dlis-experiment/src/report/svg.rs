//! The plots as SVG files, for papers and places where no script runs.

mod axis;

use dlis_eval::pareto::Objective::{self, Maximise, Minimise};
use dlis_eval::pareto::front;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::{Record, StackLayer};
use axis::Axis;

const SIZE: (u32, u32) = (760, 520);
const INK: RGBColor = RGBColor(27, 35, 48);
const MUTED: RGBColor = RGBColor(93, 104, 121);
const GRID: RGBColor = RGBColor(236, 239, 243);
/// Of the networks; the same as on the page.
const COLOURS: [RGBColor; 8] = [
    RGBColor(37, 99, 201),
    RGBColor(210, 84, 27),
    RGBColor(22, 132, 106),
    RGBColor(138, 63, 192),
    RGBColor(184, 134, 11),
    RGBColor(194, 47, 109),
    RGBColor(75, 106, 134),
    RGBColor(91, 125, 30),
];

/// A plot of one figure against another, with its front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plot {
    /// Accuracy up, latency to the right.
    AccuracyLatency,
    /// Accuracy up, memory to the right.
    AccuracyMemory,
    /// Latency up, memory to the right.
    LatencyMemory,
}

impl Plot {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AccuracyLatency, Self::AccuracyMemory, Self::LatencyMemory];

    /// The name of its file.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::AccuracyLatency => "accuracy-latency.svg",
            Self::AccuracyMemory => "accuracy-memory.svg",
            Self::LatencyMemory => "latency-memory.svg",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::AccuracyLatency => "Accuracy × latency",
            Self::AccuracyMemory => "Accuracy × memory",
            Self::LatencyMemory => "Latency × memory",
        }
    }

    const fn axes(self) -> (Quantity, Quantity) {
        match self {
            Self::AccuracyLatency => (Quantity::Latency, Quantity::Accuracy),
            Self::AccuracyMemory => (Quantity::Memory, Quantity::Accuracy),
            Self::LatencyMemory => (Quantity::Memory, Quantity::Latency),
        }
    }
}

/// What an axis shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantity {
    Accuracy,
    Latency,
    Memory,
}

impl Quantity {
    #[allow(clippy::cast_precision_loss, reason = "drawn to the pixel")]
    fn of(self, record: &Record) -> f64 {
        match self {
            Self::Accuracy => record.accuracy.top1,
            Self::Latency => record.latency.median_ns,
            // A logarithm has no place for 0.
            Self::Memory => record.memory.resident_bytes().max(1) as f64,
        }
    }

    const fn objective(self) -> Objective {
        match self {
            Self::Accuracy => Maximise,
            Self::Latency | Self::Memory => Minimise,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Accuracy => "top-1 accuracy",
            Self::Latency => "latency, median",
            Self::Memory => "memory, resident",
        }
    }
}

/// Draws a plot of `records`: colour for the network, shape for the backend, pale where not on
/// the front, hollow where the latency is noisy.
///
/// # Errors
///
/// The message of the plotting library.
pub fn svg(plot: Plot, records: &[Record]) -> Result<String, String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        draw(&root, plot, records).map_err(|error| error.to_string())?;
        root.present().map_err(|error| error.to_string())?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(root: &Area<'_>, plot: Plot, records: &[Record]) -> Result<(), Box<dyn std::error::Error>> {
    let (x, y) = plot.axes();
    let values: Vec<[f64; 2]> = records.iter().map(|record| [x.of(record), y.of(record)]).collect();
    let members = front(&values, &[x.objective(), y.objective()])?;
    let choices = |layer: StackLayer| {
        let mut choices: Vec<String> = records.iter().map(|record| layer.value(&record.point)).collect();
        choices.sort();
        choices.dedup();
        choices
    };
    let (networks, backends) = (choices(StackLayer::Network), choices(StackLayer::Backend));

    root.fill(&WHITE)?;
    let title = ("sans-serif", 20).into_font().style(FontStyle::Bold).color(&INK);
    root.draw(&Text::new(plot.title(), (20, 14), title))?;
    let head = draw_legend(root, &networks, &backends, records.iter().any(|record| record.latency.noisy))?;

    let (x_axis, y_axis) =
        (Axis::new(x, values.iter().map(|value| value[0])), Axis::new(y, values.iter().map(|value| value[1])));
    let (_, below) = root.split_vertically(head.min(SIZE.1 / 2));
    let mut chart = ChartBuilder::on(&below)
        .margin_right(24)
        .margin_bottom(10)
        .margin_left(8)
        .x_label_area_size(46)
        .y_label_area_size(78)
        .build_cartesian_2d(x_axis.scale(), y_axis.scale())?;
    let label = || ("sans-serif", 13).into_font().color(&MUTED);
    chart
        .configure_mesh()
        .x_desc(x.title())
        .y_desc(y.title())
        .axis_desc_style(("sans-serif", 14).into_font().color(&INK))
        .label_style(label())
        .x_label_formatter(&|at| x_axis.label(*at))
        .y_label_formatter(&|at| y_axis.label(*at))
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(RGBColor(190, 197, 207))
        .draw()?;

    // Marks and line are placed in pixels: their size is no matter of the axes.
    let place = |index: usize| chart.backend_coord(&(x_axis.at(values[index][0]), y_axis.at(values[index][1])));
    let mut stairs = Vec::new();
    let mut along = members.clone();
    along.sort_by(|&a, &b| values[a][0].total_cmp(&values[b][0]).then(values[b][1].total_cmp(&values[a][1])));
    for &index in &along {
        let (px, py) = place(index);
        if let Some(&(_, before)) = stairs.last() {
            stairs.push((px, before));
        }
        stairs.push((px, py));
    }
    root.draw(&PathElement::new(stairs, INK.mix(0.5).stroke_width(2)))?;
    let pale_first = (0..records.len()).filter(|index| !members.contains(index)).chain(members.iter().copied());
    for index in pale_first {
        let point = &records[index].point;
        let number = |all: &[String], own: &String| all.iter().position(|choice| choice == own).unwrap_or(0);
        let opacity = if members.contains(&index) { 1.0 } else { 0.38 };
        let colour = COLOURS[number(&networks, &point.network) % COLOURS.len()].mix(opacity);
        let shape = number(&backends, &point.backend);
        draw_mark(root, place(index), shape, colour, records[index].latency.noisy)?;
    }
    Ok(())
}

/// Draws a mark, hollow or filled.
fn draw_mark(
    area: &Area<'_>,
    (x, y): (i32, i32),
    shape: usize,
    colour: RGBAColor,
    hollow: bool,
) -> Result<(), Box<dyn std::error::Error>> {
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

/// A mark of the legend: a shape in a colour, the hollow one of noisy records, or the line of the front.
#[derive(Clone, Copy)]
enum Sign {
    Mark(usize, RGBColor),
    Hollow,
    Line,
}

/// Draws the legend from the left, in as many rows as it takes, and returns the height of the head.
fn draw_legend(
    area: &Area<'_>,
    networks: &[String],
    backends: &[String],
    noisy: bool,
) -> Result<u32, Box<dyn std::error::Error>> {
    const LEFT: i32 = 26;
    const RIGHT: i32 = 740;
    const ROW: i32 = 22;
    let colours = networks.iter().enumerate().map(|(i, name)| (&**name, Sign::Mark(0, COLOURS[i % COLOURS.len()])));
    let shapes = backends.iter().enumerate().map(|(i, name)| (&**name, Sign::Mark(i, MUTED)));
    let hollow = noisy.then_some(("noisy", Sign::Hollow));
    let (mut x, mut y) = (LEFT, 53);
    for (name, sign) in colours.chain(shapes).chain(hollow).chain([("front", Sign::Line)]) {
        let lead = if matches!(sign, Sign::Line) { 27 } else { 13 };
        // No font is loaded: the width is a guess on the safe side.
        let width = lead + i32::try_from(name.chars().count()).unwrap_or(RIGHT).min(RIGHT) * 7;
        if x > LEFT && x + width > RIGHT {
            (x, y) = (LEFT, y + ROW);
        }
        match sign {
            Sign::Mark(shape, colour) => draw_mark(area, (x, y), shape, colour.into(), false)?,
            Sign::Hollow => draw_mark(area, (x, y), 0, MUTED.into(), true)?,
            Sign::Line => area.draw(&PathElement::new([(x, y), (x + 20, y)], INK.mix(0.5).stroke_width(2)))?,
        }
        area.draw(&Text::new(name.to_owned(), (x + lead, y - 8), ("sans-serif", 14).into_font().color(&INK)))?;
        x += width + 24;
    }
    Ok(u32::try_from(y + ROW).unwrap_or(0))
}
