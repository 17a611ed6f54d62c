//! The HTML page: a template with the style, the script and the records inside.

use serde::Serialize;

use crate::page::Section;
use crate::table::{Column, columns};
use crate::{Record, StackLayer};

const PAGE: &str = include_str!("assets/page.html");
pub(crate) const CSS: &str = include_str!("assets/report.css");
const PLOT_JS: &str = include_str!("assets/plot.js");
const REPORT_JS: &str = include_str!("assets/report.js");

#[derive(Serialize)]
struct Data<'a> {
    generator: &'static str,
    layers: Vec<Layer>,
    columns: Vec<Column>,
    records: &'a [Record],
}

#[derive(Serialize)]
struct Layer {
    name: &'static str,
    level: u8,
}

/// The page on `records`, with further sections below its plots: it loads nothing, and runs nothing but its own script.
///
/// # Panics
///
/// Never: records that can be read have a JSON form.
pub fn html(title: &str, records: &[Record], sections: &[Section]) -> String {
    let data = Data {
        generator: concat!("DLIS ", env!("CARGO_PKG_VERSION")),
        layers: StackLayer::ALL.map(|layer| Layer { name: layer.name(), level: layer.level() }).into(),
        columns: columns(),
        records,
    };
    let json = serde_json::to_string(&data).expect("records have a JSON form");
    let js = [PLOT_JS, REPORT_JS].concat().replace("\"use strict\";\n", "");
    let js = format!("\"use strict\";\n{js}");
    let sections: String = sections.iter().map(crate::page::section_html).collect();
    fill(&[("title", &escape(title)), ("css", CSS), ("data", &in_script(&json)), ("js", &js), ("sections", &sections)])
}

/// Fills the template in one pass, so that nothing filled in is taken for a place to fill.
fn fill(values: &[(&str, &str)]) -> String {
    let mut page = String::with_capacity(PAGE.len() + values.iter().map(|(_, value)| value.len()).sum::<usize>());
    let mut rest = PAGE;
    while let Some((before, place)) = rest.split_once("{{") {
        page.push_str(before);
        let (name, after) = place.split_once("}}").unwrap_or((place, ""));
        page.push_str(values.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value));
        rest = after;
    }
    page.push_str(rest);
    page
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// JSON that can't end the script element it stands in. `<` occurs within strings only.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_the_template_is_filled() {
        let names: Vec<&str> = PAGE.split("{{").skip(1).filter_map(|place| Some(place.split_once("}}")?.0)).collect();
        assert_eq!(names, ["title", "css", "title", "sections", "data", "js"]);
        assert!(!PLOT_JS.contains("</script") && !REPORT_JS.contains("</script") && !CSS.contains("</style"));
    }

    #[test]
    fn nothing_filled_in_is_taken_for_markup() {
        let page = html("<b>{{data}}</b>", &[], &[]);
        assert!(page.contains("<title>&lt;b&gt;{{data}}&lt;/b&gt;</title>"));
        assert_eq!(in_script("\"</script><!--\u{2028}\""), "\"\\u003c/script>\\u003c!--\\u2028\"");
    }
}
