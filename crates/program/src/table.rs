use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};

/// A table for people. The first `texts` columns hold texts, the others numbers.
pub fn table(header: &[&str], texts: usize) -> Table {
    let rule = LineStyle::none().fill('─').junction('─');
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(rule)).set_header(header.iter().copied());
    for column in table.column_iter_mut().skip(texts) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
