//! Records as a table of text, and the columns the report shows.

use crate::{Record, StackLayer, quantity};

/// A column of figures beside those of the stack layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Accuracy,
    Images,
    Latency,
    P90,
    Throughput,
    Memory,
    Disk,
    Roofline,
}

impl Figure {
    const ALL: [Self; 8] = [
        Self::Accuracy,
        Self::Images,
        Self::Latency,
        Self::P90,
        Self::Throughput,
        Self::Memory,
        Self::Disk,
        Self::Roofline,
    ];

    /// Name as in records, title for people, and how the report formats it.
    const fn column(self) -> Column {
        let (name, title, format) = match self {
            Self::Accuracy => ("accuracy_top1", "top-1", "share"),
            Self::Images => ("images", "images", "text"),
            Self::Latency => ("latency_median_ns", "latency", "time"),
            Self::P90 => ("latency_p90_ns", "p90", "time"),
            Self::Throughput => ("throughput_images_per_s", "images/s", "rate"),
            Self::Memory => ("memory_resident_bytes", "memory", "size"),
            Self::Disk => ("disk_bytes", "disk", "size"),
            Self::Roofline => ("roofline_factor", "× roofline", "factor"),
        };
        Column { name, title, format }
    }

    fn show(self, record: &Record) -> String {
        match self {
            Self::Accuracy => quantity::share(record.accuracy.top1).to_string(),
            Self::Images => format!("{} {}", record.accuracy.images, record.accuracy.dataset),
            Self::Latency => {
                let mark = if record.latency.noisy { " ~" } else { "" };
                format!("{}{mark}", quantity::time(record.latency.median_ns))
            }
            Self::P90 => quantity::time(record.latency.p90_ns).to_string(),
            Self::Throughput => format!("{:.1}", record.throughput_images_per_s),
            Self::Memory => quantity::bytes(record.memory.resident_bytes()).to_string(),
            Self::Disk => quantity::bytes(record.memory.disk_bytes).to_string(),
            Self::Roofline => match record.predicted.roofline_ns {
                Some(ns) if ns > 0.0 => format!("{:.2}", record.latency.median_ns / ns),
                _ => "-".to_owned(),
            },
        }
    }
}

/// One column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Column {
    /// The word for it in files.
    pub name: &'static str,
    /// The word for it in headings.
    pub title: &'static str,
    /// What its values are: `text`, `share`, `time`, `size`, `rate` or `factor`.
    pub format: &'static str,
}

impl Column {
    /// Whether its values are numbers, which are set flush right.
    pub fn is_number(&self) -> bool {
        self.format != "text"
    }
}

/// Records as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The columns shown.
    pub columns: Vec<Column>,
    /// A row for each record: a cell for each column. A latency that is noisy ends in `~`.
    pub rows: Vec<Vec<String>>,
    /// What all records have in common, and no column shows: layer and choice.
    pub common: Vec<(StackLayer, String)>,
}

/// All columns: the layers of the stack from the network down, then the figures.
pub fn columns() -> Vec<Column> {
    let layers = StackLayer::ALL.into_iter().map(layer_column);
    layers.chain(Figure::ALL.into_iter().map(Figure::column)).collect()
}

const fn layer_column(layer: StackLayer) -> Column {
    Column { name: layer.name(), title: layer.name(), format: "text" }
}

/// The table of `records`, in their order. A layer on which they all made the same choice has no column
/// (but the network always has one).
///
/// ```
/// let table = dlis_experiment::table::table(&[]);
/// assert_eq!(table.columns[0].title, "network");
/// assert!(table.rows.is_empty());
/// ```
pub fn table<'a>(records: impl IntoIterator<Item = &'a Record>) -> Table {
    let records: Vec<&Record> = records.into_iter().collect();
    let mut common = Vec::new();
    let mut layers = Vec::new();
    for layer in StackLayer::ALL {
        let first = records.first().map(|record| layer.value(&record.point));
        let same = records.iter().all(|record| Some(layer.value(&record.point)) == first);
        match first {
            Some(choice) if same && layer != StackLayer::Network => common.push((layer, choice)),
            _ => layers.push(layer),
        }
    }
    let columns =
        layers.iter().map(|layer| layer_column(*layer)).chain(Figure::ALL.into_iter().map(Figure::column)).collect();
    let row = |record: &&Record| {
        let choices = layers.iter().map(|layer| layer.value(&record.point));
        choices.chain(Figure::ALL.into_iter().map(|figure| figure.show(record))).collect()
    };
    Table { columns, rows: records.iter().map(row).collect(), common }
}
