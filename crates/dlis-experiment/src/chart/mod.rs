//! Charts as SVG: panels of lines or bars under one legend.

mod axis;
mod panel;
mod style;

use plotters::prelude::*;

pub(crate) use axis::{Axis, Kind};
pub(crate) use style::{Area, COLOURS, Drawn, GRID, INK, MUTED, Sign, draw_legend, draw_mark};

/// Extents of one panel in pixels.
const PANEL: (u32, u32) = (400, 320);

/// A figure: panels in rows.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) title: String,
    /// Panels a row.
    pub(crate) columns: usize,
    pub(crate) panels: Vec<Panel>,
}

/// One pair of axes.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    /// What a reader must know to read it: what is missing, above all.
    pub(crate) notes: Vec<String>,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Marks and lines over two axes.
    Lines {
        x: (Kind, &'static str),
        y: (Kind, &'static str),
        series: Vec<Series>,
        /// A height that all is compared with.
        rule: Option<f64>,
    },
    /// Bars from zero.
    Bars { y: (Kind, &'static str), groups: Vec<Group> },
}

#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Of [`COLOURS`].
    pub(crate) colour: usize,
    pub(crate) shape: usize,
    /// Hollow marks on a dashed line: figures of others.
    pub(crate) quoted: bool,
    /// Whether a line joins the marks.
    pub(crate) joined: bool,
    pub(crate) points: Vec<[f64; 2]>,
}

/// Bars side by side over one name.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<Bar>,
}

#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) colour: usize,
    /// `None`: not known, and said so instead of drawn.
    pub(crate) value: Option<f64>,
}

impl Content {
    fn is_empty(&self) -> bool {
        match self {
            Self::Lines { series, .. } => series.iter().all(|series| series.points.is_empty()),
            Self::Bars { groups, .. } => groups.iter().flat_map(|group| &group.bars).all(|bar| bar.value.is_none()),
        }
    }

    /// Names and signs, for the legend.
    fn signs(&self) -> Vec<(&str, Sign)> {
        match self {
            Self::Lines { series, .. } => {
                let drawn = series.iter().filter(|series| !series.points.is_empty());
                drawn
                    .map(|series| {
                        let colour = COLOURS[series.colour % COLOURS.len()];
                        let sign = if series.quoted { Sign::Hollow } else { Sign::Mark };
                        (series.name.as_str(), sign(series.shape, colour))
                    })
                    .collect()
            }
            Self::Bars { groups, .. } => groups
                .iter()
                .flat_map(|group| &group.bars)
                .filter(|bar| bar.value.is_some())
                .map(|bar| (bar.name.as_str(), Sign::Bar(COLOURS[bar.colour % COLOURS.len()].into())))
                .collect(),
        }
    }
}

impl Figure {
    /// The figure as an SVG document.
    ///
    /// # Errors
    ///
    /// The message of the plotting library.
    pub(crate) fn svg(&self) -> Result<String, String> {
        let columns = self.columns.clamp(1, self.panels.len().max(1));
        let rows = self.panels.len().div_ceil(columns);
        let mut legend: Vec<(&str, Sign)> = Vec::new();
        for (name, sign) in self.panels.iter().flat_map(|panel| panel.content.signs()) {
            if !legend.iter().any(|(known, _)| *known == name) {
                legend.push((name, sign));
            }
        }
        // A row of the legend holds at least this many characters; the head is cut to what is used.
        let letters: usize = legend.iter().map(|(name, _)| name.chars().count() + 6).sum();
        let head = 64 + 22 * to_u32(letters * 7 / (to_usize(PANEL.0) * columns - 60) + 1);
        let size = (PANEL.0 * to_u32(columns), head + PANEL.1 * to_u32(rows));
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
            self.draw(&root, legend, columns, rows, head).map_err(|error| error.to_string())?;
            root.present().map_err(|error| error.to_string())?;
        }
        Ok(text)
    }

    fn draw(&self, root: &Area<'_>, legend: Vec<(&str, Sign)>, columns: usize, rows: usize, head: u32) -> Drawn {
        root.fill(&WHITE)?;
        let title = ("sans-serif", 20).into_font().style(FontStyle::Bold).color(&INK);
        root.draw(&Text::new(self.title.clone(), (20, 14), title))?;
        let right = i32::try_from(PANEL.0)? * i32::try_from(columns)? - 20;
        draw_legend(root, legend.into_iter(), (26, 53), right)?;
        if self.panels.is_empty() {
            return Ok(());
        }
        let (_, below) = root.split_vertically(head);
        for (panel, area) in self.panels.iter().zip(below.split_evenly((rows, columns))) {
            panel::draw(&area, panel)?;
        }
        Ok(())
    }
}

fn to_u32(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX >> 16)
}

fn to_usize(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(points: Vec<[f64; 2]>) -> Panel {
        let series = Series { name: "ours <1>".into(), colour: 0, shape: 0, quoted: false, joined: true, points };
        let quoted = Series { name: "paper".into(), colour: 1, shape: 3, quoted: true, joined: true, points: vec![] };
        Panel {
            title: "vgg".into(),
            notes: vec!["paper: not known".into()],
            content: Content::Lines {
                x: (Kind::Share, "sparsity"),
                y: (Kind::Share, "accuracy"),
                series: vec![series, quoted],
                rule: Some(0.9),
            },
        }
    }

    #[test]
    fn a_panel_has_a_mark_a_point_and_the_legend_one_a_series_that_has_points() {
        let figure = Figure {
            title: "T".into(),
            columns: 3,
            panels: vec![lines(vec![[0.5, 0.93], [0.9, 0.91]]), lines(vec![[0.6, 0.95]])],
        };
        let svg = figure.svg().unwrap();
        assert_eq!(svg.matches("<circle").count(), 3 + 1);
        assert!(svg.contains("ours &lt;1&gt;") && svg.contains("paper: not known") && !svg.contains(">\npaper\n<"));
    }

    #[test]
    fn what_is_not_known_is_a_word_and_no_bar() {
        let bar = |value| Bar { name: "1 thread".into(), colour: 0, value };
        let group = |name: &str, value| Group { name: name.into(), bars: vec![bar(value)] };
        let panel = Panel {
            title: "vgg".into(),
            notes: Vec::new(),
            content: Content::Bars {
                y: (Kind::Time, "time"),
                groups: vec![group("plain", Some(2e6)), group("ternary", None)],
            },
        };
        let svg = Figure { title: "T".into(), columns: 1, panels: vec![panel.clone()] }.svg().unwrap();
        let with_both = {
            let mut panel = panel;
            if let Content::Bars { groups, .. } = &mut panel.content {
                groups[1].bars[0].value = Some(1e6);
            }
            Figure { title: "T".into(), columns: 1, panels: vec![panel] }.svg().unwrap()
        };
        assert_eq!(svg.matches("<rect").count() + 1, with_both.matches("<rect").count());
        assert!(svg.contains("not measured") && !with_both.contains("not measured"));
    }

    #[test]
    fn nothing_at_all_is_said_so() {
        let svg = Figure { title: "T".into(), columns: 2, panels: vec![lines(vec![])] }.svg().unwrap();
        assert!(svg.contains("nothing to draw") && !svg.contains("<circle"));
        assert!(Figure { title: "T".into(), columns: 2, panels: vec![] }.svg().is_ok());
    }
}
