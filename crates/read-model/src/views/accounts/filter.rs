//! Which accounts a list contains, and the few accounts that an index of searches finds for it.

use std::collections::BTreeSet;

use sqlx::{PgPool, Result, query, query_file, query_scalar};
use uuid::Uuid;

use passbook_domain::{Metadata, Status};

/// The greatest text with a given beginning ends with this character.
pub(crate) const LAST_CHARACTER: &str = "\u{10ffff}";

/// The digits of a whole id.
const ID_DIGITS: usize = 32;
/// The most digits that are looked up in the index of parts of ids. More have more trigrams, and the first digits of ids are in many
/// of them.
const INDEXED_DIGITS_MAX: usize = 8;

/// Which accounts a list contains: those that match all of its conditions.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Accounts of this owner.
    pub owner: Option<String>,
    /// Accounts in this status.
    pub status: Option<Status>,
    /// Accounts in this currency.
    pub currency: Option<String>,
    /// Accounts that this text finds.
    pub text: Option<SearchText>,
    /// Accounts with at least this balance, in minor units.
    pub min_balance: Option<i64>,
    /// Accounts with at most this balance, in minor units.
    pub max_balance: Option<i64>,
    /// Accounts with all these pairs; all accounts if it is empty.
    pub metadata: Metadata,
}

/// A text that finds the beginning of an owner, in any case, or a part of an account's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchText {
    /// The beginning of an owner.
    pub owner: String,
    /// Hexadecimal digits in lower case, without hyphens; `None` if the text is not a part of an id.
    pub id_part: Option<String>,
}

/// The index that a page is read from. The other conditions of the filter are compared with each row.
pub(super) enum Index<'a> {
    /// All accounts, the newest opening first.
    Opened,
    /// The accounts of one owner.
    Owner(&'a str),
    /// The accounts in one status other than open. Most accounts are open; these are in no such index.
    NotOpen(Status),
    /// The accounts in one currency.
    Currency(&'a str),
}

/// All accounts of a partition that an index of searches finds. Those of the list are among them.
#[derive(Debug)]
pub(super) struct Candidates {
    /// The lowest checkpoint at which they were found.
    pub(super) position: i64,
    pub(super) ids: Vec<Uuid>,
}

impl Filter {
    /// The index with the fewest rows for most banks.
    pub(super) fn index(&self) -> Index<'_> {
        match (&self.owner, self.status, &self.currency) {
            (Some(owner), _, _) => Index::Owner(owner),
            (None, Some(status @ (Status::Frozen | Status::Closed)), _) => Index::NotOpen(status),
            (None, Some(Status::Open) | None, Some(currency)) => Index::Currency(currency),
            (None, Some(Status::Open) | None, None) => Index::Opened,
        }
    }

    /// The beginning of an owner, for a statement.
    pub(super) fn owner_beginning(&self) -> Option<&str> {
        self.text.as_ref().map(|text| &*text.owner)
    }

    /// The part of an id, for a statement.
    pub(super) fn id_part(&self) -> Option<&str> {
        self.text.as_ref().and_then(|text| text.id_part.as_deref())
    }

    /// The pairs of metadata as JSON, for a statement; `None` if there are none.
    pub(super) fn pairs(&self) -> Option<String> {
        crate::views::columns::json_unless_default(&self.metadata)
    }

    /// The accounts that an index of searches finds for the text or the metadata. `None` if the filter has neither, if more than
    /// `count_max` accounts are found, or if this database does not have the index.
    ///
    /// # Errors
    /// The database failed.
    pub(super) async fn candidates(&self, pool: &PgPool, partition: i16, count_max: i64) -> Result<Option<Candidates>> {
        if let Some(text) = &self.text
            && let Some(found) = text.candidates(pool, partition, count_max).await?
        {
            return Ok(Some(found));
        }
        match self.pairs() {
            Some(pairs) => with_metadata(pool, partition, &pairs, count_max).await,
            None => Ok(None),
        }
    }
}

impl SearchText {
    async fn candidates(&self, pool: &PgPool, partition: i16, count_max: i64) -> Result<Option<Candidates>> {
        let Some(of_owner) = self.of_owner(pool, partition, count_max).await? else { return Ok(None) };
        let Some(part) = &self.id_part else { return Ok(Some(of_owner)) };
        let with_part = with_id_part(pool, partition, part, count_max).await?;
        Ok(with_part.map(|with_part| of_owner.union(with_part)))
    }

    async fn of_owner(&self, pool: &PgPool, partition: i16, count_max: i64) -> Result<Option<Candidates>> {
        if !is_usable(pool, "account_view_owner_folded").await? {
            return Ok(None);
        }
        let rows = query_file!(
            "src/views/accounts/with_owner_beginning.sql",
            partition,
            self.owner,
            LAST_CHARACTER,
            count_max.saturating_add(1)
        );
        let rows = rows.fetch_all(pool).await?;
        let Some(position) = rows.first().map(|row| row.position) else { return Ok(None) };
        Ok(Candidates::within(count_max, position, rows.into_iter().filter_map(|row| row.account_id).collect()))
    }
}

impl Candidates {
    /// `None` if there are too many.
    fn within(count_max: i64, position: i64, ids: Vec<Uuid>) -> Option<Self> {
        (ids.len() as i64 <= count_max).then_some(Self { position, ids })
    }

    fn union(self, other: Self) -> Self {
        let ids: BTreeSet<Uuid> = self.ids.into_iter().chain(other.ids).collect();
        Self { position: self.position.min(other.position), ids: ids.into_iter().collect() }
    }
}

async fn with_id_part(pool: &PgPool, partition: i16, part: &str, count_max: i64) -> Result<Option<Candidates>> {
    if part.len() == ID_DIGITS {
        return Ok(Some(Candidates { position: i64::MAX, ids: Uuid::try_parse(part).into_iter().collect() }));
    }
    if !is_usable(pool, "account_view_id_trigrams").await? {
        return Ok(None);
    }
    let row = query!(
        r#"SELECT view_position AS "position!", account_ids AS "ids!" FROM accounts_with_id_part($1, $2, $3)"#,
        partition,
        &part[part.len().saturating_sub(INDEXED_DIGITS_MAX)..],
        count_max.saturating_add(1)
    );
    let row = row.fetch_optional(pool).await?;
    Ok(row.and_then(|row| Candidates::within(count_max, row.position, row.ids)))
}

async fn with_metadata(pool: &PgPool, partition: i16, pairs: &str, count_max: i64) -> Result<Option<Candidates>> {
    if !is_usable(pool, "account_view_metadata").await? {
        return Ok(None);
    }
    let row = query!(
        r#"SELECT view_position AS "position!", account_ids AS "ids!" FROM accounts_with_metadata($1, $2, $3)"#,
        partition,
        pairs,
        count_max.saturating_add(1)
    );
    let row = row.fetch_optional(pool).await?;
    Ok(row.and_then(|row| Candidates::within(count_max, row.position, row.ids)))
}

/// Whether an index exists and is built. `passbook migrate` builds the indexes of searches after the migrations, and the one of ids
/// only where the extension `pg_trgm` is available. Without its index, a statement would read all rows.
///
/// # Errors
/// The database failed.
pub(crate) async fn is_usable(pool: &PgPool, index: &str) -> Result<bool> {
    let is_valid = query_scalar!(
        r#"SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass($1) AND indisvalid) AS "is_valid!""#,
        index
    );
    is_valid.fetch_one(pool).await
}
