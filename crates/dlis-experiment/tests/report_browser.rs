//! The report in a real browser: it draws, filters, explains and says nothing on the console.
//!
//! Needs Chromium and its driver (Debian: `chromium chromium-driver`), and fails without them.

mod support;
#[path = "support/webdriver.rs"]
mod webdriver;

use std::path::PathBuf;

use dlis_experiment::report;
use webdriver::Browser;

const ARROW_RIGHT: char = '\u{e014}';
const ENTER: char = '\u{e007}';

fn page() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let files = report::write(folder.path(), "Inference stack: the built-in experiment", &support::records()).unwrap();
    (folder, files.html)
}

fn marks(plot: &str) -> String {
    format!("[data-testid=plot-{plot}] [data-testid=point]")
}

/// The bytes of base 64, padded or not.
fn decode(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => u32::from(c - b'A'),
        b'a'..=b'z' => u32::from(c - b'a') + 26,
        b'0'..=b'9' => u32::from(c - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').collect();
    let bytes = |four: &[u8]| {
        let bits = four.iter().enumerate().fold(0, |bits, (i, c)| bits | value(*c) << (18 - 6 * i));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    digits.chunks(4).flat_map(bytes).collect()
}

/// Takes a picture, checks that it shows something, and keeps it where the build keeps test files.
fn picture(browser: &Browser, name: &str, width: u32) {
    let png = decode(&browser.screenshot());
    assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
    assert_eq!(png[16..20], width.to_be_bytes(), "the picture's width");
    assert!(png.len() > 10_000, "{} bytes are next to nothing", png.len());
    std::fs::write(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name), png).unwrap();
}

#[test]
fn a_user_filters_hovers_selects_and_sorts() {
    let (_folder, html) = page();
    let browser = Browser::start(1280, 1800);
    browser.open(&html);
    for plot in ["accuracy-latency", "accuracy-memory", "latency-memory", "predicted-measured"] {
        assert_eq!(browser.count(&marks(plot)), 48, "{plot}");
    }
    assert_eq!(browser.count("[data-testid=front]"), 3);
    assert_eq!(browser.count("[data-testid=row]"), 48);
    assert_eq!(browser.text("[data-testid=count]"), "48 of 48 points");
    picture(&browser, "report-light.png", 1280);

    // A filter takes its points out of every plot and of the table, and the front follows.
    let front = || browser.eval("document.querySelector('[data-testid=front]').getAttribute('d')");
    let front_of_all = front();
    browser.point("[data-testid=filter-network-resnet18-cifar10]", true);
    assert_eq!(browser.count(&marks("accuracy-latency")), 32);
    assert_eq!(browser.count("[data-testid=row]"), 32);
    assert_eq!(browser.text("[data-testid=count]"), "32 of 48 points");
    assert_ne!(front(), front_of_all);
    browser.point("[data-testid=filter-threads-1]", true);
    assert_eq!(browser.count(&marks("latency-memory")), 16);
    browser.point("[data-testid=reset]", true);
    assert_eq!(browser.count("[data-testid=row]"), 48);
    assert_eq!(front(), front_of_all);

    // The card tells the whole point, and goes with the pointer.
    let record = support::record(0, "fixed:im2col-gemm", "omp", 8);
    let mark = format!("[data-testid=plot-accuracy-memory] [data-id='{}']", record.id);
    assert_eq!(browser.eval("document.querySelector('[data-testid=tooltip]').hidden"), true);
    // Marks of equal figures lie on top of each other, so the event is sent to this one.
    browser.eval(&format!("document.querySelector(\"{mark}\").dispatchEvent(new PointerEvent('pointerenter'))"));
    let card = browser.text("[data-testid=tooltip]");
    for part in [
        "vgg16-cifar10",
        "none",
        "dense-f32",
        "fixed:im2col-gemm",
        "omp",
        "8",
        "static",
        support::HW,
        "93.5 % top-1",
        "MB",
    ] {
        assert!(card.contains(part), "{part}: {card}");
    }
    browser.eval(&format!("document.querySelector(\"{mark}\").dispatchEvent(new PointerEvent('pointerleave'))"));
    assert_eq!(browser.eval("document.querySelector('[data-testid=tooltip]').hidden"), true);
    // With a real pointer some card shows, whichever mark is on top.
    browser.point(&format!("{}:last-child", marks("predicted-measured")), false);
    assert!(browser.text("[data-testid=tooltip]").contains("roofline"));
    picture(&browser, "report-hover.png", 1280);

    // A click on a row shows its layers, sorted on demand.
    browser.point(&format!("[data-testid=row][data-id='{}']", record.id), true);
    let shown = browser.text("[data-testid=profile-point]");
    assert!(shown.contains("vgg16-cifar10 / none / dense-f32 / fixed:im2col-gemm / omp / 8"), "{shown}");
    assert_eq!(browser.count("[data-testid=layer]"), record.layers.len() as u64);
    assert_eq!(browser.text("[data-testid=layer]"), "features.0");
    browser.point("[data-testid=by-time]", true);
    let slowest = record.layers.iter().max_by(|a, b| a.median_ns.total_cmp(&b.median_ns)).unwrap();
    assert_eq!(browser.text("[data-testid=layer]"), slowest.layer);

    // The table sorts by what is clicked, and back.
    let first = || browser.eval("document.querySelector('[data-testid=row]').dataset.id").as_str().unwrap().to_owned();
    let by_memory = |a: &dlis_experiment::Record| a.memory.resident_bytes();
    browser.point("[data-testid=sort-memory_resident_bytes]", true);
    let records = support::records();
    let least = records.iter().map(by_memory).min().unwrap();
    assert_eq!(by_memory(records.iter().find(|r| r.id == first()).unwrap()), least);
    browser.point("[data-testid=sort-memory_resident_bytes]", true);
    let most = records.iter().map(by_memory).max().unwrap();
    assert_eq!(by_memory(records.iter().find(|r| r.id == first()).unwrap()), most);

    // Keys do what the pointer does.
    browser.eval("document.querySelector('[data-testid=plot-accuracy-latency]').focus()");
    browser.key(ARROW_RIGHT);
    let fastest = records.iter().min_by(|a, b| a.latency.median_ns.total_cmp(&b.latency.median_ns)).unwrap();
    assert!(browser.text("[data-testid=tooltip]").contains(&fastest.point.network));
    browser.key(ENTER);
    assert!(browser.text("[data-testid=profile-point]").contains(&fastest.point.algorithm.to_string()));
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn it_fits_dark_mode_and_narrow_screens() {
    let (_folder, html) = page();
    let browser = Browser::start(1280, 1800);
    browser.open(&html);
    browser.point("[data-testid=theme]", true);
    assert_eq!(browser.eval("document.documentElement.dataset.theme"), "dark");
    browser.eval("scrollTo(0, document.querySelector('[data-testid=profile]').offsetTop - 40)");
    picture(&browser, "report-dark.png", 1280);
    drop(browser);

    let browser = Browser::start(500, 1800);
    browser.open(&html);
    let width = browser.eval("innerWidth");
    assert_eq!(browser.eval("document.documentElement.scrollWidth"), width, "nothing sticks out to the side");
    assert_eq!(browser.count(&marks("latency-memory")), 48);
    picture(&browser, "report-narrow.png", 500);
    assert_eq!(browser.console(), Vec::<String>::new());
}

#[test]
fn the_svg_files_open_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let files = report::write(folder.path(), "t", &support::records()).unwrap();
    let browser = Browser::start(780, 720);
    for svg in files.svgs {
        browser.open(&svg);
        assert_eq!(browser.eval("document.documentElement.nodeName"), "svg", "{}", svg.display());
        assert_eq!(browser.count("parsererror"), 0);
        assert!(browser.count("text") > 12 && browser.count("circle") > 24);
        picture(&browser, &format!("{}.png", svg.file_stem().unwrap().to_str().unwrap()), 780);
    }
    assert_eq!(browser.console(), Vec::<String>::new());
}
