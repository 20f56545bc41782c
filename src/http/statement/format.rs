//! The formats of a statement.

use super::{
    body::StatementFormat, camt053::Camt053, content::Content, csv::Csv, hledger::Hledger, html::Html, json::Json,
    mt940::Mt940, ofx::Ofx,
};

/// A format, as the parameter `format` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = StatementFormat)]
pub enum Format {
    Json,
    Csv,
    Camt053,
    Mt940,
    Ofx,
    Hledger,
    Html,
}

impl Format {
    /// All formats. The first one is the default.
    pub(super) const ALL: [Self; 7] =
        [Self::Json, Self::Csv, Self::Camt053, Self::Mt940, Self::Ofx, Self::Hledger, Self::Html];

    /// The format with this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The name in the parameter `format`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Camt053 => "camt053",
            Self::Mt940 => "mt940",
            Self::Ofx => "ofx",
            Self::Hledger => "hledger",
            Self::Html => "html",
        }
    }

    /// The media type without parameters.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv",
            Self::Camt053 => "application/vnd.iso20022.camt.053+xml",
            Self::Mt940 => "text/x-mt940",
            Self::Ofx => "application/x-ofx",
            Self::Hledger => "text/x-hledger",
            Self::Html => "text/html",
        }
    }

    /// The value of the header `Content-Type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Json | Self::Camt053 | Self::Ofx => self.media_type(),
            Self::Csv => "text/csv; charset=utf-8",
            Self::Mt940 => "text/x-mt940; charset=us-ascii",
            Self::Hledger => "text/x-hledger; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
        }
    }

    /// The end of the name of a file; `None` for formats that a browser shows.
    pub(super) fn extension(self) -> Option<&'static str> {
        match self {
            Self::Json | Self::Html => None,
            Self::Csv => Some("csv"),
            Self::Camt053 => Some("xml"),
            Self::Mt940 => Some("sta"),
            Self::Ofx => Some("ofx"),
            Self::Hledger => Some("journal"),
        }
    }

    /// Whether the format contains the available balance.
    pub(super) fn has_available_balance(self) -> bool {
        match self {
            Self::Json | Self::Csv | Self::Hledger | Self::Html => false,
            Self::Camt053 | Self::Mt940 | Self::Ofx => true,
        }
    }

    /// Whether the format contains the batches of the commands.
    pub(super) fn has_batch_ids(self) -> bool {
        match self {
            Self::Camt053 => true,
            Self::Json | Self::Csv | Self::Mt940 | Self::Ofx | Self::Hledger | Self::Html => false,
        }
    }

    /// The writer of this format.
    pub(super) fn writer(self, content: Content) -> Box<dyn StatementFormat> {
        match self {
            Self::Json => Box::new(Json::new(content)),
            Self::Csv => Box::new(Csv(content)),
            Self::Camt053 => Box::new(Camt053(content)),
            Self::Mt940 => Box::new(Mt940(content)),
            Self::Ofx => Box::new(Ofx(content)),
            Self::Hledger => Box::new(Hledger(content)),
            Self::Html => Box::new(Html(content)),
        }
    }
}
