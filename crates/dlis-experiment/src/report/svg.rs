//! The plots as SVG files, for papers and places where no script runs.

use dlis_eval::pareto::Objective::{self, Maximise, Minimise};
use dlis_eval::pareto::front;
use plotters::prelude::*;

use crate::chart::{Area, Axis, COLOURS, GRID, INK, Kind, MUTED, Sign, draw_legend, draw_mark};
use crate::{Record, StackLayer};

const SIZE: (u32, u32) = (760, 520);

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

    const fn kind(self) -> Kind {
        match self {
            Self::Accuracy => Kind::Share,
            Self::Latency => Kind::Time,
            Self::Memory => Kind::Size,
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
    let noisy = records.iter().any(|record| record.latency.noisy);
    let colours = networks.iter().enumerate().map(|(i, name)| (&**name, Sign::Mark(0, COLOURS[i % COLOURS.len()])));
    let shapes = backends.iter().enumerate().map(|(i, name)| (&**name, Sign::Mark(i, MUTED)));
    let hollow = noisy.then_some(("noisy", Sign::Hollow(0, MUTED)));
    let legend = colours.chain(shapes).chain(hollow).chain([("front", Sign::Line(INK.mix(0.5), false))]);
    let head = draw_legend(root, legend, (26, 53), 740)?;

    let (x_axis, y_axis) = (
        Axis::new(x.kind(), values.iter().map(|value| value[0])),
        Axis::new(y.kind(), values.iter().map(|value| value[1])),
    );
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
