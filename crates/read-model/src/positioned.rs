//! Query results together with the checkpoint of the view that they were read from.

use passbook_event_store::Position;

/// A query result, with the checkpoint and the generation of the view.
#[derive(Clone, Debug)]
pub struct Positioned<T> {
    /// The result.
    pub value: T,
    /// The view's checkpoint, read in the same statement as the value.
    pub position: Position,
    /// The view's generation, from 1.
    pub generation: i16,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T, K> {
    /// The rows. There can be fewer than requested, or none, although more follow: one query scans a limited number of rows.
    pub rows: Vec<T>,
    /// The key after which the next page starts; `None` at the end of the list.
    pub next: Option<K>,
}

impl<T> Positioned<T> {
    /// Maps the value; position and generation are unchanged.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Positioned<U> {
        Positioned { value: map(self.value), position: self.position, generation: self.generation }
    }
}

impl<T> Positioned<Vec<T>> {
    /// Reads the checkpoint from the first row of a statement whose rows all repeat it, and maps each row with `view`. `view`
    /// returns `None` for a row that holds the checkpoint alone. Without any row, no generation of the view is live: `None`.
    pub(crate) fn from_rows<R>(
        rows: Vec<R>,
        checkpoint: impl FnOnce(&R) -> (Position, i16),
        view: impl Fn(R) -> Option<T>,
    ) -> Option<Self> {
        let (position, generation) = checkpoint(rows.first()?);
        Some(Positioned { value: rows.into_iter().filter_map(view).collect(), position, generation })
    }

    /// Combines the results of several partitions in their order. The generation is the highest one.
    pub(crate) fn merge(results: Vec<Positioned<T>>) -> Self {
        let mut merged =
            Positioned { value: Vec::with_capacity(results.len()), position: Position::default(), generation: 1 };
        for Positioned { value, position, generation } in results {
            merged.position = if merged.value.is_empty() { position } else { merged.position.merge(position) };
            merged.generation = merged.generation.max(generation);
            merged.value.push(value);
        }
        merged
    }

    /// The result of a query for one key; `None` if there is no row for it.
    pub fn into_single(self) -> Positioned<Option<T>> {
        self.map(|mut values| values.pop())
    }

    /// Cuts the rows of a query for `limit + 1` rows down to `limit`. The flag is true if there are more rows.
    pub(crate) fn into_page(self, limit: i64) -> Positioned<(Vec<T>, bool)> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.map(|mut rows| {
            let more = rows.len() > limit;
            rows.truncate(limit);
            (rows, more)
        })
    }
}
