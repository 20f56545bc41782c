//! Formats Markdown tables with aligned columns, and the numbers in them.

/// A table with the first column aligned to the left and the others to the right.
pub fn aligned<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let head = head.map(str::to_owned);
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: &[String; N]| {
        let cells = cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!(" {cell:<width$} |"),
            _ => format!(" {cell:>width$} |"),
        });
        format!("|{}\n", cells.collect::<String>())
    };
    let rule = widths.iter().enumerate().map(|(column, width)| match column {
        0 => format!("{}|", "-".repeat(width + 2)),
        _ => format!("{}:|", "-".repeat(width + 1)),
    });
    let rule = format!("|{}\n", rule.collect::<String>());
    line(&head) + &rule + &rows.iter().map(line).collect::<String>()
}

/// An integer with blanks between groups of three digits: `22 281`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A rate, rounded to an integer.
pub fn rate(per_second: f64) -> String {
    grouped(per_second.round() as u64)
}

/// The text, or a dash for a missing value.
pub fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{aligned, grouped};

    #[test]
    fn groups_of_three_digits_are_separated() {
        let texts = [0, 999, 1_000, 22_281, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1 000", "22 281", "1 234 567"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let table = aligned(["row", "µs"], &[["deposits", "7"].map(str::to_owned)]);
        assert_eq!(table, "| row      | µs |\n|----------|---:|\n| deposits |  7 |\n");
    }
}
