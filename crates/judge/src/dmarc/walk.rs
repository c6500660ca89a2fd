//! The DNS tree walk (RFC 9989 §4.10): which record holds for a domain, and which domain is the
//! top of its organisation.

use super::WALK_QUERIES_MAX;
use super::record::{Psd, Record};
use dns::Resolver;
use mail::Domain;
use std::collections::HashMap;

/// Where the policy for an author domain was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// At the author's domain itself.
    Author,
    /// Above it: at its organisational domain or its public suffix.
    Above,
}

/// A policy record, and where it is.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) domain: Domain,
    pub(super) record: Record,
    pub(super) place: Place,
}

/// Walks, and remembers what it found, so that no name is asked about twice.
pub(super) struct Walker<'a> {
    resolver: &'a dyn Resolver,
    known: HashMap<Domain, Result<Option<Record>, String>>,
    pub(super) steps: Vec<String>,
}

impl<'a> Walker<'a> {
    pub(super) fn new(resolver: &'a dyn Resolver) -> Self {
        Self {
            resolver,
            known: HashMap::new(),
            steps: Vec::new(),
        }
    }

    /// The policy for an author domain (RFC 9989 §4.10.1).
    ///
    /// # Errors
    /// In words, when the DNS could not be asked.
    pub(super) async fn policy(&mut self, author: &Domain) -> Result<Option<Policy>, String> {
        if let Some(record) = self.record_at(author).await? {
            return Ok(Some(Policy {
                domain: author.clone(),
                record,
                place: Place::Author,
            }));
        }
        let found = self.walk(author).await?;
        let organizational = select(author, &found);
        let at = |domain: &Domain| found.iter().find(|(d, _)| d == domain);
        let public_suffix = found.iter().find(|(_, r)| r.psd == Psd::Yes);
        Ok(at(&organizational)
            .or(public_suffix)
            .map(|(domain, record)| Policy {
                domain: domain.clone(),
                record: record.clone(),
                place: Place::Above,
            }))
    }

    /// The organisational domain (RFC 9989 §4.10.2).
    ///
    /// # Errors
    /// In words, when the DNS could not be asked.
    pub(super) async fn organizational_domain(&mut self, start: &Domain) -> Result<Domain, String> {
        let found = self.walk(start).await?;
        Ok(select(start, &found))
    }

    /// All records from `start` upwards, longest name first, until one ends the walk.
    async fn walk(&mut self, start: &Domain) -> Result<Vec<(Domain, Record)>, String> {
        let mut found = Vec::new();
        for target in targets(start) {
            if let Some(record) = self.record_at(&target).await? {
                let last = record.psd != Psd::Unknown;
                found.push((target, record));
                if last {
                    break;
                }
            }
        }
        Ok(found)
    }

    async fn record_at(&mut self, domain: &Domain) -> Result<Option<Record>, String> {
        if let Some(known) = self.known.get(domain) {
            return known.clone();
        }
        let found = self.ask(domain).await;
        self.known.insert(domain.clone(), found.clone());
        found
    }

    async fn ask(&mut self, domain: &Domain) -> Result<Option<Record>, String> {
        let Ok(name) = domain.prefixed("_dmarc") else {
            return Ok(None);
        };
        let texts = match self.resolver.txt(&name).await {
            Ok(answer) => answer.records,
            Err(error) if error.is_temporary() => {
                self.steps.push(format!("asked for TXT of {name}: {error}"));
                return Err(error.to_string());
            }
            Err(_) => Vec::new(),
        };
        let mut records: Vec<Record> = texts.iter().filter_map(|t| Record::parse(t)).collect();
        let said = match records.as_slice() {
            [] => "no DMARC record".to_owned(),
            [one] => format!("\"{}\"", one.text),
            // RFC 9989 §4.10 step 2: more than one are none.
            many => format!("{} DMARC records, which count as none", many.len()),
        };
        self.steps.push(format!("asked for TXT of {name}: {said}"));
        Ok(if records.len() == 1 { records.pop() } else { None })
    }
}

/// The names that a walk visits (RFC 9989 §4.10, steps 1 to 7).
fn targets(start: &Domain) -> Vec<Domain> {
    let mut targets = vec![start.clone()];
    let mut current = start.parent();
    while let Some(domain) = current {
        // Of a long name, the labels on the left are skipped, so that 8 questions are enough.
        if domain.as_str().split('.').count() < WALK_QUERIES_MAX {
            targets.push(domain.clone());
        }
        current = domain.parent();
    }
    targets
}

/// Chooses the organisational domain among the records of a walk (RFC 9989 §4.10.2).
fn select(start: &Domain, found: &[(Domain, Record)]) -> Domain {
    for (domain, record) in found {
        match record.psd {
            Psd::No => return domain.clone(),
            Psd::Yes if domain != start => return one_below(domain, start),
            _ => {}
        }
    }
    // The records stand longest name first.
    found
        .last()
        .map_or_else(|| start.clone(), |(domain, _)| domain.clone())
}

/// The domain one label below `ancestor` on the way to `start`.
fn one_below(ancestor: &Domain, start: &Domain) -> Domain {
    let mut domain = start.clone();
    while let Some(parent) = domain.parent() {
        if parent == *ancestor {
            break;
        }
        domain = parent;
    }
    domain
}

#[cfg(test)]
mod tests {
    use super::*;
    use dns::table::TableResolver;
    use futures_util::FutureExt;

    fn d(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn table(records: &[(&str, &str)]) -> TableResolver {
        records.iter().fold(TableResolver::new(), |t, (domain, tags)| {
            t.with_txt(&format!("_dmarc.{domain}"), format!("v=DMARC1; {tags}"))
        })
    }

    #[test]
    fn the_walk_of_the_rfc() {
        let visited: Vec<String> = targets(&d("a.b.c.d.e.f.g.h.i.j.mail.example.com"))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            visited,
            [
                "a.b.c.d.e.f.g.h.i.j.mail.example.com",
                "g.h.i.j.mail.example.com",
                "h.i.j.mail.example.com",
                "i.j.mail.example.com",
                "j.mail.example.com",
                "mail.example.com",
                "example.com",
                "com"
            ]
        );
        assert_eq!(targets(&d("1.2.3.4.5.6.7.8")).len(), 8);
        assert_eq!(targets(&d("1.2.3.4.5.6.7")).len(), 7);
    }

    #[test]
    fn organizational_domains() {
        for (records, start, organizational) in [
            // The three examples of RFC 9989 §4.10.2.
            (
                &[("mail.example.com", ""), ("example.com", "")][..],
                "a.mail.example.com",
                "example.com",
            ),
            (
                &[("mail.example.com", "psd=n"), ("example.com", "")],
                "a.mail.example.com",
                "mail.example.com",
            ),
            (&[("com", "psd=y")], "a.mail.example.com", "example.com"),
            (&[], "a.mail.example.com", "a.mail.example.com"),
            (&[("example.com", "")], "example.com", "example.com"),
            (&[("com", "psd=y")], "com", "com"),
            (
                &[("mail.example.com", "psd=y"), ("example.com", "")],
                "mail.example.com",
                "mail.example.com",
            ),
            (
                &[("mail.example.com", "psd=y"), ("example.com", "")],
                "a.mail.example.com",
                "a.mail.example.com",
            ),
        ] {
            let table = table(records);
            let mut walker = Walker::new(&table);
            let found = walker.organizational_domain(&d(start)).now_or_never().unwrap();
            assert_eq!(found, Ok(d(organizational)), "{start} {records:?}");
        }
    }

    #[test]
    fn policies() {
        for (records, author, policy) in [
            (
                &[("a.example.com", "p=none"), ("example.com", "p=reject")][..],
                "a.example.com",
                Some("a.example.com"),
            ),
            (
                &[("b.example.com", "p=none"), ("example.com", "p=reject")],
                "a.b.example.com",
                Some("example.com"),
            ),
            (
                &[("b.example.com", "psd=n"), ("example.com", "p=reject")],
                "a.b.example.com",
                Some("b.example.com"),
            ),
            (&[("com", "psd=y; p=reject")], "a.b.example.com", Some("com")),
            (
                &[("example.com", "p=none"), ("com", "psd=y; p=reject")],
                "b.example.com",
                Some("example.com"),
            ),
            (&[], "a.b.example.com", None),
        ] {
            let table = table(records);
            let mut walker = Walker::new(&table);
            let found = walker.policy(&d(author)).now_or_never().unwrap().unwrap();
            assert_eq!(found.map(|p| p.domain), policy.map(d), "{author} {records:?}");
        }
        let two = table(&[("example.com", "p=none"), ("example.com", "p=reject")]);
        let found = Walker::new(&two)
            .policy(&d("example.com"))
            .now_or_never()
            .unwrap();
        assert!(found.unwrap().is_none(), "two records are none");
        let slow = TableResolver::new().with_timeout("_dmarc.example.com");
        assert!(
            Walker::new(&slow)
                .policy(&d("a.example.com"))
                .now_or_never()
                .unwrap()
                .is_err()
        );
    }
}
