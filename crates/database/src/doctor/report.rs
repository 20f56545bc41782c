//! The report of `passbook doctor`, as a table and as JSON.

use std::fmt;

use serde::Serialize;

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing to do.
    Good,
    /// The value could not be read.
    Unknown,
    /// Passbook works, but slower or with less safety than it could.
    Remark,
    /// A crash of the server or of its machine can lose or damage data.
    Unsafe,
}

impl Verdict {
    /// The mark before the line of a finding.
    fn mark(self) -> &'static str {
        match self {
            Self::Good => " ",
            Self::Unknown => "?",
            Self::Remark => "!",
            Self::Unsafe => "X",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the setting, or of what was checked.
    pub name: &'static str,
    /// What was found.
    pub value: String,
    /// What Passbook recommends.
    pub recommended: String,
    /// What the difference means.
    pub verdict: Verdict,
    /// The reason for the recommendation, or what to do.
    pub why: String,
}

/// The state of the database and the settings of its server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Adds a finding.
    pub fn push(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Adds several findings.
    pub(super) fn extend(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
    }

    /// The names of the settings with which a crash can lose data.
    pub fn unsafe_settings(&self) -> Vec<&'static str> {
        self.with_verdict(Verdict::Unsafe).map(|finding| finding.name).collect()
    }

    /// One line of JSON.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            safe: bool,
            remarks: usize,
            findings: &'a [Finding],
        }
        let remarks = self.with_verdict(Verdict::Remark).count();
        let body = Body { safe: self.unsafe_settings().is_empty(), remarks, findings: &self.findings };
        // Serialization cannot fail: all map keys are strings.
        serde_json::to_string(&body).map(|line| line + "\n").unwrap_or_default()
    }

    fn with_verdict(&self, verdict: Verdict) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.verdict == verdict)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = ["setting", "value", "recommended", "why"];
        let column = |of: fn(&Finding) -> &str, title: &str| {
            self.findings.iter().map(|finding| of(finding).chars().count()).fold(title.len(), usize::max)
        };
        let names = column(|finding| finding.name, title[0]);
        let values = column(|finding| &finding.value, title[1]);
        let recommendations = column(|finding| &finding.recommended, title[2]);
        let mut line = |mark: &str, [name, value, recommended, why]: [&str; 4]| {
            writeln!(f, "{mark} {name:names$}  {value:values$}  {recommended:recommendations$}  {why}")
        };
        line(" ", title)?;
        for Finding { name, value, recommended, verdict, why } in &self.findings {
            line(verdict.mark(), [name, value, recommended, why])?;
        }
        let remarks = self.with_verdict(Verdict::Remark).count();
        let unsafe_settings = self.unsafe_settings().len();
        write!(f, "\n{unsafe_settings} unsafe (X), {remarks} to improve (!)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let finding = |name, value: &str, verdict| Finding {
            name,
            value: value.into(),
            recommended: "on".into(),
            verdict,
            why: "Why.".into(),
        };
        let findings = [("fsync", "off", Verdict::Unsafe), ("autovacuum", "off", Verdict::Remark)];
        let mut report = Report::default();
        report.extend(findings.map(|(name, value, verdict)| finding(name, value, verdict)));
        report
    }

    #[test]
    fn the_table_marks_what_is_unsafe_and_what_could_be_better() {
        assert_eq!(
            report().to_string(),
            "  setting     value  recommended  why\n\
             X fsync       off    on           Why.\n\
             ! autovacuum  off    on           Why.\n\
             \n\
             1 unsafe (X), 1 to improve (!)"
        );
    }

    #[test]
    fn the_json_has_a_summary_and_every_finding() {
        assert_eq!(
            report().to_json(),
            "{\"safe\":false,\"remarks\":1,\"findings\":[\
             {\"name\":\"fsync\",\"value\":\"off\",\"recommended\":\"on\",\"verdict\":\"unsafe\",\"why\":\"Why.\"},\
             {\"name\":\"autovacuum\",\"value\":\"off\",\"recommended\":\"on\",\"verdict\":\"remark\",\"why\":\"Why.\"}]}\n"
        );
    }
}
