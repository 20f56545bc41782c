//! Elements of XML 1.0. The formats write them one after the other, because a statement is streamed.

use std::borrow::Cow;

use quick_xml::escape::escape;

/// Elements that are written to memory.
pub(super) struct Xml<'a>(pub &'a mut Vec<u8>);

impl Xml<'_> {
    /// Writes text as it is, such as a declaration.
    pub(super) fn raw(&mut self, text: &str) {
        self.0.extend(text.as_bytes());
    }

    /// Writes the start of an element, whose attributes are a part of `tag`.
    pub(super) fn open(&mut self, tag: &str) {
        self.raw("<");
        self.raw(tag);
        self.raw(">");
    }

    /// Writes the end of an element.
    pub(super) fn close(&mut self, name: &str) {
        self.raw("</");
        self.raw(name);
        self.raw(">");
    }

    /// Writes an element with a text.
    pub(super) fn text(&mut self, tag: &str, text: &str) {
        self.open(tag);
        self.raw(&escape(representable(text).as_ref()));
        self.close(tag.split(' ').next().unwrap_or(tag));
    }

    /// Writes elements within each other, the innermost one with a text.
    pub(super) fn nested(&mut self, names: &[&str], text: &str) {
        match names {
            [] => {}
            [name] => self.text(name, text),
            [name, inner @ ..] => {
                self.open(name);
                self.nested(inner, text);
                self.close(name);
            }
        }
    }
}

/// The text with a replacement for each character that XML 1.0 cannot contain (section 2.2).
fn representable(text: &str) -> Cow<'_, str> {
    let is_forbidden = |character: char| matches!(character, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    match text.contains(is_forbidden) {
        true => text.replace(is_forbidden, "\u{fffd}").into(),
        false => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::Xml;

    #[test]
    fn texts_are_escaped_and_forbidden_characters_are_replaced() {
        let mut bytes = Vec::new();
        Xml(&mut bytes).nested(&["A", "B C=\"d\""], "]]> & <x> \"y\" \u{1}é😀");
        let text = String::from_utf8(bytes).expect("UTF-8");
        assert_eq!(text, "<A><B C=\"d\">]]&gt; &amp; &lt;x&gt; &quot;y&quot; \u{fffd}é😀</B></A>");
    }
}
