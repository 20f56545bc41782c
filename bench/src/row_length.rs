//! The duration of a row, and the short form in which `make test` executes every row.

use clap::Args;

const SHORT_CONNECTIONS_MAX: u32 = 2;

#[derive(Args, Clone, Copy, Debug)]
pub struct RowLength {
    /// Duration of each row, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Execute every row for a moment, with few connections and little data: this tests the benchmark and measures nothing
    #[arg(long, conflicts_with = "seconds")]
    short: bool,
}

impl RowLength {
    pub const fn of_seconds(seconds: u32) -> Self {
        Self { seconds, short: false }
    }

    /// The duration of a row. 1 s is the shortest that wrk can run.
    pub fn seconds(self) -> u32 {
        self.choose(self.seconds, 1)
    }

    pub fn connections(self, full: u32) -> u32 {
        self.choose(full, full.min(SHORT_CONNECTIONS_MAX))
    }

    /// A number of the measurement, or that of its short form.
    pub fn choose<T>(self, full: T, short: T) -> T {
        if self.short { short } else { full }
    }
}

#[cfg(test)]
mod tests {
    use super::RowLength;

    #[test]
    fn the_short_form_has_few_connections_and_rows_of_a_second() {
        let full = RowLength::of_seconds(8);
        let short = RowLength { short: true, ..full };
        assert_eq!((full.seconds(), full.connections(128), full.choose(3, 1)), (8, 128, 3));
        assert_eq!((short.seconds(), short.connections(128), short.choose(3, 1)), (1, 2, 1));
        assert_eq!(short.connections(1), 1);
    }
}
