//! Sections as HTML.

use super::{Section, TextTable};
use crate::report::{CSS, escape};

/// A whole page of sections: it loads nothing and runs nothing.
pub fn document(title: &str, sections: &[Section]) -> String {
    let contents: String =
        sections.iter().map(|s| format!("<a href=\"#{}\">{}</a>\n", escape(&s.id), escape(&s.title))).collect();
    let body: String = sections.iter().map(html).collect();
    let title = escape(title);
    format!(
        "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">
<link rel=\"icon\" href=\"data:,\">
<title>{title}</title>
<style>
{CSS}</style>
</head>
<body>
<header><div class=\"bar\"><div><h1>{title}</h1><p>DLIS {}</p></div></div></header>
<main>
<nav class=\"contents\" aria-label=\"Contents\">
{contents}</nav>
{body}</main>
</body>
</html>
",
        env!("CARGO_PKG_VERSION")
    )
}

/// One section, as a card of the page.
pub(crate) fn html(section: &Section) -> String {
    let mut text = format!(
        "<section class=\"card\" id=\"{id}\" data-testid=\"{id}\" aria-labelledby=\"h-{id}\">\n<div class=\"head\"><h2 id=\"h-{id}\">{}</h2></div>\n",
        escape(&section.title),
        id = escape(&section.id),
    );
    for paragraph in &section.text {
        text += &format!("<p class=\"prose\">{}</p>\n", escape(paragraph));
    }
    for drawing in &section.figures {
        text += &format!("<figure class=\"drawing\">{}</figure>\n", drawing.svg);
    }
    for table in &section.tables {
        text += &table_html(table);
    }
    if !section.findings.is_empty() {
        let items: String = section.findings.iter().map(|item| format!("<li>{}</li>\n", escape(item))).collect();
        text += &format!("<ul class=\"findings\">\n{items}</ul>\n");
    }
    text + "</section>\n"
}

fn table_html(table: &TextTable) -> String {
    let cells = |cells: &[String], tag: &str| -> String {
        cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
    };
    let rows: String = table.rows.iter().map(|row| format!("<tr>{}</tr>\n", cells(row, "td"))).collect();
    let notes: String = table.notes.iter().map(|note| format!("<p class=\"muted\">{}</p>\n", escape(note))).collect();
    format!(
        "<h3>{}</h3>\n<div class=\"scroll\" tabindex=\"0\"><table class=\"plain\"><thead><tr>{}</tr></thead><tbody>\n{rows}</tbody></table></div>\n{notes}",
        escape(&table.title),
        cells(&table.columns, "th"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Drawing;

    #[test]
    fn every_part_is_there_and_no_text_is_markup() {
        let section = Section {
            id: "a".into(),
            title: "A <b>".into(),
            text: vec!["x & y".into()],
            figures: vec![Drawing { file_name: "a.svg".into(), svg: "<svg></svg>".into() }],
            tables: vec![TextTable {
                title: "T".into(),
                columns: vec!["<c>".into()],
                rows: vec![vec!["not measured".into()]],
                notes: vec!["<n>".into()],
            }],
            findings: vec!["<script>".into()],
        };
        let page = document("P <1>", &[section]);
        for part in
            ["A &lt;b&gt;", "x &amp; y", "<svg></svg>", "&lt;c&gt;", "&lt;n&gt;", "&lt;script&gt;", "P &lt;1&gt;"]
        {
            assert!(page.contains(part), "{part}");
        }
        assert!(!page.contains("<script") && !page.contains("src="));
        assert_eq!(page.matches("<td>").count(), 1);
    }
}
