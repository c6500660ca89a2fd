//! The arguments of FETCH (RFC 3501 §6.4.5).

use super::grammar::Cursor;
use super::{ParseError, Parsed};
use crate::fetch::{FetchItem, Partial, Section, SectionText};

/// Items of one FETCH at most.
pub const FETCH_ITEMS_MAX: usize = 100;
/// Numbers of one section's path at most.
pub const SECTION_DEPTH_MAX: usize = 50;
/// Names in one HEADER.FIELDS at most.
pub const HEADER_FIELDS_MAX: usize = 300;

pub(super) fn items(c: &mut Cursor<'_>, uid: bool) -> Parsed<Vec<FetchItem>> {
    let mut items = Vec::new();
    if c.peek() == Some(b'(') {
        c.list(FETCH_ITEMS_MAX, |c| {
            items.push(item(c, None)?);
            Ok(())
        })?;
        if items.is_empty() {
            return Err(ParseError::Expected("a fetch item"));
        }
    } else {
        let name = c.name();
        match macro_items(&name) {
            Some(all) => items.extend(all),
            None => items.push(item(c, Some(name))?),
        }
    }
    // RFC 3501 §6.4.8: the UID form answers with the UID whether it was asked for or not.
    if uid && !items.contains(&FetchItem::Uid) {
        items.insert(0, FetchItem::Uid);
    }
    Ok(items)
}

fn macro_items(name: &str) -> Option<Vec<FetchItem>> {
    let mut items = vec![FetchItem::Flags, FetchItem::InternalDate, FetchItem::Rfc822Size];
    match name {
        "FAST" => {}
        "ALL" => items.push(FetchItem::Envelope),
        "FULL" => items.extend([FetchItem::Envelope, FetchItem::Body]),
        _ => return None,
    }
    Some(items)
}

fn item(c: &mut Cursor<'_>, name: Option<String>) -> Parsed<FetchItem> {
    let name = name.unwrap_or_else(|| c.name());
    Ok(match name.as_str() {
        "ENVELOPE" => FetchItem::Envelope,
        "FLAGS" => FetchItem::Flags,
        "INTERNALDATE" => FetchItem::InternalDate,
        "RFC822" => FetchItem::Rfc822,
        "RFC822.HEADER" => FetchItem::Rfc822Header,
        "RFC822.TEXT" => FetchItem::Rfc822Text,
        "RFC822.SIZE" => FetchItem::Rfc822Size,
        "UID" => FetchItem::Uid,
        "BODYSTRUCTURE" => FetchItem::BodyStructure,
        "BODY" if c.peek() == Some(b'[') => body_section(c, false)?,
        "BODY" => FetchItem::Body,
        "BODY.PEEK" => body_section(c, true)?,
        _ => return Err(ParseError::Expected("a fetch item of RFC 3501")),
    })
}

fn body_section(c: &mut Cursor<'_>, peek: bool) -> Parsed<FetchItem> {
    if !c.eat(b'[') {
        return Err(ParseError::Expected("a section in brackets"));
    }
    let section = section(c)?;
    if !c.eat(b']') {
        return Err(ParseError::Expected("the end of a section"));
    }
    let mut partial = None;
    if c.eat(b'<') {
        let start = c.number()?;
        let length = if c.eat(b'.') { c.number()? } else { 0 };
        if length == 0 || !c.eat(b'>') {
            return Err(ParseError::Expected("a partial such as <0.1024>"));
        }
        partial = Some(Partial { start, length });
    }
    Ok(FetchItem::BodySection {
        peek,
        section,
        partial,
    })
}

fn section(c: &mut Cursor<'_>) -> Parsed<Section> {
    let mut path = Vec::new();
    while c.peek().is_some_and(|b| b.is_ascii_digit()) {
        let number = c.number()?;
        if number == 0 {
            return Err(ParseError::Expected("a part number from 1"));
        }
        if path.len() >= SECTION_DEPTH_MAX {
            return Err(ParseError::TooComplex);
        }
        path.push(number);
        if !c.eat(b'.') {
            return Ok(Section {
                path,
                text: SectionText::Whole,
            });
        }
    }
    let text = match c.name().as_str() {
        "" if path.is_empty() => SectionText::Whole,
        "HEADER" => SectionText::Header,
        "HEADER.FIELDS" => SectionText::HeaderFields(field_names(c)?),
        "HEADER.FIELDS.NOT" => SectionText::HeaderFieldsNot(field_names(c)?),
        "TEXT" => SectionText::Text,
        "MIME" if !path.is_empty() => SectionText::Mime,
        _ => return Err(ParseError::Expected("a section of RFC 3501")),
    };
    Ok(Section { path, text })
}

fn field_names(c: &mut Cursor<'_>) -> Parsed<Vec<String>> {
    c.space()?;
    let mut names = Vec::new();
    c.list(HEADER_FIELDS_MAX, |c| {
        names.push(c.utf8_astring()?);
        Ok(())
    })?;
    if names.is_empty() {
        return Err(ParseError::Expected("a header field name"));
    }
    Ok(names)
}
