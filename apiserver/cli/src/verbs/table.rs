//! Tables as the server renders them, laid out for a terminal.

use claw_schemas::Descriptor;
use serde_json::Value;

use super::session::text;

/// Spaces between columns, and the least a column takes: kubectl's own figures.
const PADDING: usize = 3;
const WIDTH_MIN: usize = 6;

/// A `meta.k8s.io/v1` Table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    name: String,
    /// 0 is always shown, others only in a wide table.
    priority: i64,
}

#[derive(Clone, Debug)]
pub struct Row {
    cells: Vec<String>,
    pub object: Value,
}

/// What to show beside the server's columns.
#[derive(Clone, Debug, Default)]
pub struct Style {
    pub wide: bool,
    /// A first column with the namespace.
    pub namespace: bool,
    /// Names as `pod/web`.
    pub with_kind: bool,
    pub labels: bool,
}

impl Table {
    /// From the server's JSON.
    pub fn read(table: &Value) -> anyhow::Result<Self> {
        if table["kind"] != "Table" {
            anyhow::bail!("the server answered \"{}\" instead of a Table", text(table, "/kind"));
        }
        let columns = array(&table["columnDefinitions"]).map(|column| Column {
            name: text(column, "/name").to_owned(),
            priority: column["priority"].as_i64().unwrap_or(0),
        });
        let rows = array(&table["rows"]).map(|row| Row {
            cells: array(&row["cells"]).map(cell).collect(),
            object: row["object"].clone(),
        });
        Ok(Self { columns: columns.collect(), rows: rows.collect() })
    }

    /// An empty table with the same columns.
    pub fn like(&self) -> Self {
        Self { columns: self.columns.clone(), rows: Vec::new() }
    }

    /// Adds the rows of another table of the same kind. Watches send the columns only once.
    pub fn extend(&mut self, other: Self) {
        if self.columns.is_empty() {
            self.columns = other.columns;
        }
        self.rows.extend(other.rows);
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "<none>".to_owned(),
        // A line break would tear the table apart.
        Value::String(text) => text.lines().next().unwrap_or_default().to_owned(),
        other => other.to_string(),
    }
}

/// Prints the tables of one kind, keeping columns aligned while rows keep coming.
#[derive(Debug)]
pub struct Printer {
    style: Style,
    /// `deployment.apps/`
    prefix: String,
    widths: Vec<usize>,
}

impl Printer {
    pub fn new(kind: &Descriptor, style: Style) -> Self {
        let prefix = super::session::short_name(kind, "");
        Self { style, prefix, widths: Vec::new() }
    }

    /// The table as text, with or without the line of headers.
    pub fn render(&mut self, table: &Table, header: bool) -> String {
        let mut lines = Vec::with_capacity(table.rows.len() + 1);
        if header {
            lines.push(self.header(table));
        }
        lines.extend(table.rows.iter().map(|row| self.row(table, row)));
        widen(&mut self.widths, &lines);
        lines.iter().map(|line| spread(line, &self.widths)).collect()
    }

    fn shown(&self, column: &Column) -> bool {
        self.style.wide || column.priority == 0
    }

    fn header(&self, table: &Table) -> Vec<String> {
        let mut line = Vec::new();
        if self.style.namespace {
            line.push("NAMESPACE".to_owned());
        }
        line.extend(table.columns.iter().filter(|c| self.shown(c)).map(|c| c.name.to_uppercase()));
        if self.style.labels {
            line.push("LABELS".to_owned());
        }
        line
    }

    fn row(&self, table: &Table, row: &Row) -> Vec<String> {
        let mut line = Vec::new();
        if self.style.namespace {
            line.push(text(&row.object, "/metadata/namespace").to_owned());
        }
        for (i, (column, cell)) in table.columns.iter().zip(&row.cells).enumerate() {
            if i == 0 && self.style.with_kind {
                line.push(format!("{}{cell}", self.prefix));
            } else if self.shown(column) {
                line.push(cell.clone());
            }
        }
        if self.style.labels {
            line.push(labels(&row.object["metadata"]["labels"]));
        }
        line
    }
}

/// Lines of cells below each other.
pub fn lay_out(lines: &[Vec<String>]) -> String {
    let mut widths = Vec::new();
    widen(&mut widths, lines);
    lines.iter().map(|line| spread(line, &widths)).collect()
}

fn widen(widths: &mut Vec<usize>, lines: &[Vec<String>]) {
    for line in lines {
        widths.resize(widths.len().max(line.len()), WIDTH_MIN);
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count() + PADDING);
        }
    }
}

fn spread(line: &[String], widths: &[usize]) -> String {
    let mut text = String::new();
    for (cell, width) in line.iter().zip(widths) {
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
    }
    let mut text = text.trim_end().to_owned();
    text.push('\n');
    text
}

/// `a=b,c=d`, or `<none>`.
pub fn labels(labels: &Value) -> String {
    let Some(map) = labels.as_object().filter(|map| !map.is_empty()) else {
        return "<none>".to_owned();
    };
    let pairs = map.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use claw_schemas::Registry;
    use serde_json::json;

    use super::*;

    fn pods() -> Table {
        let row = |name: &str, restarts: Value, node: Value| {
            json!({
                "cells": [name, "1/1", restarts, node],
                "object": {"metadata": {"name": name, "namespace": "team", "labels": {"app": "web", "tier": "x"}}},
            })
        };
        Table::read(&json!({
            "kind": "Table",
            "columnDefinitions": [
                {"name": "Name"}, {"name": "Ready", "priority": 0}, {"name": "Restarts"}, {"name": "Node", "priority": 1},
            ],
            "rows": [row("web-1", json!(0), json!("gpu-02")), row("a-much-longer-name", json!("3 (2m ago)"), Value::Null)],
        }))
        .unwrap()
    }

    fn render(style: Style) -> String {
        let registry = Registry::builtin();
        Printer::new(registry.named("pods").unwrap(), style).render(&pods(), true)
    }

    #[test]
    fn a_table_is_laid_out_as_kubectl_does() {
        assert_eq!(
            render(Style::default()),
            "NAME                 READY   RESTARTS\n\
             web-1                1/1     0\n\
             a-much-longer-name   1/1     3 (2m ago)\n"
        );
    }

    #[test]
    fn wide_tables_namespaces_kinds_and_labels_add_columns() {
        let style = Style { wide: true, namespace: true, with_kind: true, labels: true };
        assert_eq!(
            render(style),
            "NAMESPACE   NAME                     READY   RESTARTS     NODE     LABELS\n\
             team        pod/web-1                1/1     0            gpu-02   app=web,tier=x\n\
             team        pod/a-much-longer-name   1/1     3 (2m ago)   <none>   app=web,tier=x\n"
        );
    }

    #[test]
    fn later_rows_keep_the_columns_of_the_first() {
        let registry = Registry::builtin();
        let mut printer = Printer::new(registry.named("pods").unwrap(), Style::default());
        printer.render(&pods(), true);
        let mut later = pods();
        later.rows.truncate(1);
        assert_eq!(printer.render(&later, false), "web-1                1/1     0\n");
    }

    #[test]
    fn an_answer_that_is_no_table_is_refused() {
        assert!(Table::read(&json!({"kind": "PodList"})).is_err());
    }
}
