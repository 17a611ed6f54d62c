//! Checks the dependencies of the workspace against the tables of ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::Failure;

/// A crate and what it depends on, development dependencies left out.
type Edges = BTreeMap<String, BTreeSet<String>>;

/// Checks the workspace at `root`.
pub(crate) fn check(root: &Path) -> Result<(), Failure> {
    let path = root.join("ARCHITECTURE.md");
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let violations = violations(&dependencies(root)?, &table(&text, "edges")?, &table(&text, "owners")?);
    if violations.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("ARCHITECTURE.md and the manifests disagree:\n  {}", violations.join("\n  "))))
}

/// The rows of the table between `<!-- name: begin -->` and `<!-- name: end -->`: the first cell's name, and
/// the names of the second.
fn table(text: &str, name: &str) -> Result<Edges, Failure> {
    let (begin, end) = (format!("<!-- {name}: begin -->"), format!("<!-- {name}: end -->"));
    let inside = text.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    let Some((table, _)) = inside else {
        return Err(Failure::new(format!("ARCHITECTURE.md: expected a table between `{begin}` and `{end}`")));
    };
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.trim().trim_matches('|').splitn(2, '|');
        let key = names(cells.next()?).into_iter().next()?;
        Some((key, names(cells.next().unwrap_or_default())))
    });
    Ok(rows.collect())
}

/// The workspace's crates and their normal and build dependencies.
fn dependencies(root: &Path) -> Result<Edges, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .map_err(|error| Failure::new(format!("`cargo metadata` could not be started: {error}")))?;
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new(format!("`cargo metadata` printed no JSON: {error}")))?;
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let used = |package: &Value| {
        let dependencies = package["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
        dependencies.iter().filter(|dependency| dependency["kind"] != "dev").map(name).collect()
    };
    Ok(packages.iter().map(|package| (name(package), used(package))).collect())
}

/// What the tables do not allow, and what they say of crates that are not there.
fn violations(found: &Edges, allowed: &Edges, owners: &Edges) -> Vec<String> {
    let mut violations = Vec::new();
    for (package, used) in found {
        let Some(row) = allowed.get(package) else {
            violations.push(format!("`{package}` has no row"));
            continue;
        };
        let inner = used.iter().filter(|name| found.contains_key(*name));
        for name in inner.filter(|name| !row.contains(*name)) {
            violations.push(format!("`{package}` uses `{name}`, which its row does not allow"));
        }
        for name in used.iter().filter(|name| owners.get(*name).is_some_and(|owner| !owner.contains(package))) {
            violations.push(format!("`{package}` uses `{name}`, which belongs to {:?}", owners[name]));
        }
    }
    for package in allowed.keys().filter(|package| !found.contains_key(*package)) {
        violations.push(format!("the row of `{package}` describes no crate"));
    }
    // The direction: a crate may not be allowed what is allowed it.
    for (package, row) in allowed {
        for name in row.iter().filter(|name| allowed.get(*name).is_some_and(|other| other.contains(package))) {
            violations.push(format!("`{package}` and `{name}` are allowed each other"));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(rows: &[(&str, &[&str])]) -> Edges {
        let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        rows.iter().map(|(key, names)| ((*key).to_owned(), set(names))).collect()
    }

    #[test]
    fn tables_are_read() {
        let text = "x\n<!-- edges: begin -->\n| crate | may use |\n|---|---|\n| `a` | |\n| `b` | `a` `c` |\n<!-- edges: end -->";
        assert_eq!(table(text, "edges").unwrap(), edges(&[("a", &[]), ("b", &["a", "c"])]));
        assert!(table(text, "owners").is_err());
    }

    #[test]
    fn every_kind_of_violation_is_named() {
        let found = edges(&[("a", &["b", "heavy"]), ("b", &[]), ("new", &[])]);
        let allowed = edges(&[("a", &[]), ("b", &["a"]), ("gone", &[])]);
        let owners = edges(&[("heavy", &["b"])]);
        let violations = violations(&found, &allowed, &owners).join("\n");
        for expected in ["`a` uses `b`", "`a` uses `heavy`", "`new` has no row", "`gone` describes no crate"] {
            assert!(violations.contains(expected), "{expected} is not in\n{violations}");
        }
        assert!(super::violations(&edges(&[("a", &[])]), &edges(&[("a", &[])]), &edges(&[])).is_empty());
    }

    #[test]
    fn this_workspace_keeps_its_architecture() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's root");
        if let Err(failure) = check(root) {
            panic!("{failure}");
        }
    }
}
