//! The body of a statement in any format: it is written one page of lines at a time.

use axum::body::Body;
use futures_util::{StreamExt, stream};

use crate::http::{error_code::ErrorCode, problem::Problem};
use passbook_read_model::{
    Error,
    transactions::{Totals, TransactionView, statement::Lines},
};

/// Writes a statement in one format.
pub(super) trait StatementFormat: Send {
    /// Writes the part before the lines.
    fn write_head(&mut self, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable>;

    /// Writes further lines.
    fn write_lines(&mut self, lines: &[TransactionView], bytes: &mut Vec<u8>) -> Result<(), Unrepresentable>;

    /// Writes the part after the last line.
    fn write_end(&mut self, totals: Totals, bytes: &mut Vec<u8>) -> Result<(), Unrepresentable>;
}

/// The format cannot contain a value of the statement. The text is a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unrepresentable(pub String);

/// Why a body ends early.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error(transparent)]
    Read(#[from] Error),
    #[error(transparent)]
    Unrepresentable(#[from] Unrepresentable),
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Read(error) => error.into(),
            BodyError::Unrepresentable(Unrepresentable(detail)) => Problem::new(ErrorCode::NotAcceptable, detail),
        }
    }
}

/// The body of a statement, written page by page.
pub(super) struct StatementBody {
    pub format: Box<dyn StatementFormat>,
    pub lines: Lines,
}

impl StatementBody {
    /// Writes the first page at once, so that an error there is still a problem. After that, an error ends the body early.
    pub async fn into_body(mut self) -> Result<Body, BodyError> {
        let mut first = Vec::new();
        self.format.write_head(&mut first)?;
        self.write_page(&mut first).await?;
        if self.lines.is_finished() {
            return Ok(Body::from(first));
        }
        let rest = stream::try_unfold(self, |mut body| async move {
            if body.lines.is_finished() {
                return Ok(None);
            }
            let mut page = Vec::new();
            let written = body.write_page(&mut page).await;
            // The status is already sent, so the log is the only place for the reason.
            written.inspect_err(|error| tracing::error!(%error, "statement was aborted"))?;
            Ok::<_, BodyError>(Some((page, body)))
        });
        Ok(Body::from_stream(stream::once(async { Ok(first) }).chain(rest)))
    }

    /// Writes the next lines, and the totals after the last one.
    async fn write_page(&mut self, bytes: &mut Vec<u8>) -> Result<(), BodyError> {
        let lines = self.lines.next_page().await?;
        self.format.write_lines(&lines, bytes)?;
        if self.lines.is_finished() {
            self.format.write_end(self.lines.totals(), bytes)?;
        }
        Ok(())
    }
}
