//! A resolver around another one that tells every question with its answer, for demos and traces.
//!
//! Promises: passes each question on once and returns the answer untouched. Never asks by itself.

use crate::{Mx, Name, NamedMx, Resolver, Result, Tlsa, reverse_name};
use futures_util::future::BoxFuture;
use mail::Domain;
use std::fmt::Display;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One question that was asked, and what came back, in words and in the forms of zone files.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Exchange {
    /// The name that was asked about.
    pub name: String,
    /// The record type: `MX`, `TXT`, `A`, `AAAA`, `PTR`, `TLSA`.
    pub record_type: &'static str,
    /// The records; empty when there are none.
    pub records: Vec<String>,
    /// Why there are none, when that is known.
    pub problem: Option<String>,
    /// Whether asking again later may answer otherwise.
    pub temporary: bool,
}

impl Display for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ", self.name, self.record_type)?;
        match &self.problem {
            Some(problem) => write!(f, "-> {problem}"),
            None if self.records.is_empty() => f.write_str("-> no such records"),
            None => write!(f, "-> {}", self.records.join(", ")),
        }
    }
}

/// Tells `observer` of every exchange of the resolver inside.
#[derive(Clone, Debug)]
pub struct Observed<R, F> {
    inner: R,
    observer: F,
}

impl<R: Resolver, F: Fn(&Exchange) + Send + Sync> Observed<R, F> {
    /// Wraps a resolver. The observer is called on the asking task and should return at once.
    pub fn new(inner: R, observer: F) -> Self {
        Self { inner, observer }
    }

    async fn watch<T>(
        &self,
        name: String,
        record_type: &'static str,
        show: impl Fn(&T) -> String,
        asked: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let result = asked.await;
        let exchange = Exchange {
            name,
            record_type,
            records: match &result {
                Ok(answer) => answer.records.iter().map(show).collect(),
                Err(_) => Vec::new(),
            },
            problem: result.as_ref().err().map(ToString::to_string),
            temporary: result.as_ref().is_err_and(crate::DnsError::is_temporary),
        };
        (self.observer)(&exchange);
        result
    }
}

fn show_mx(mx: &Mx) -> String {
    show_named_mx(&mx.clone().into())
}

fn show_named_mx(mx: &NamedMx) -> String {
    match &mx.exchange {
        Some(host) => format!("{} {host}", mx.preference),
        None => format!("{} .", mx.preference),
    }
}

fn show_txt(text: impl AsRef<[u8]>) -> String {
    format!("\"{}\"", text.as_ref().escape_ascii())
}

impl<R: Resolver, F: Fn(&Exchange) + Send + Sync> Resolver for Observed<R, F> {
    fn mx<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Mx>> {
        Box::pin(self.watch(name.to_string(), "MX", show_mx, self.inner.mx(name)))
    }
    fn txt<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(self.watch(name.to_string(), "TXT", |t| show_txt(t), self.inner.txt(name)))
    }
    fn a<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Ipv4Addr>> {
        Box::pin(self.watch(name.to_string(), "A", ToString::to_string, self.inner.a(name)))
    }
    fn aaaa<'a>(&'a self, name: &'a Domain) -> BoxFuture<'a, Result<Ipv6Addr>> {
        Box::pin(self.watch(
            name.to_string(),
            "AAAA",
            ToString::to_string,
            self.inner.aaaa(name),
        ))
    }
    fn ptr(&self, ip: IpAddr) -> BoxFuture<'_, Result<Domain>> {
        Box::pin(self.watch(reverse_name(ip), "PTR", ToString::to_string, self.inner.ptr(ip)))
    }
    fn tlsa<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Tlsa>> {
        Box::pin(self.watch(
            name.to_string(),
            "TLSA",
            ToString::to_string,
            self.inner.tlsa(name),
        ))
    }
    fn mx_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<NamedMx>> {
        Box::pin(self.watch(name.to_string(), "MX", show_named_mx, self.inner.mx_of(name)))
    }
    fn txt_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(self.watch(name.to_string(), "TXT", |t| show_txt(t), self.inner.txt_of(name)))
    }
    fn a_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Ipv4Addr>> {
        Box::pin(self.watch(name.to_string(), "A", ToString::to_string, self.inner.a_of(name)))
    }
    fn aaaa_of<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Ipv6Addr>> {
        Box::pin(self.watch(
            name.to_string(),
            "AAAA",
            ToString::to_string,
            self.inner.aaaa_of(name),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableResolver;
    use futures_util::FutureExt;
    use std::sync::Mutex;

    #[test]
    fn every_exchange_is_told() {
        let told = Mutex::new(Vec::new());
        let table = TableResolver::new()
            .with_mx("example.com", 10, Some(Domain::parse("mx.example.com").unwrap()))
            .with_timeout("slow.example");
        let observed = Observed::new(table, |e: &Exchange| told.lock().unwrap().push(e.to_string()));
        for name in ["example.com", "slow.example", "mx.example.com"] {
            let _ = observed
                .mx(&Domain::parse(name).unwrap())
                .now_or_never()
                .expect("at once");
        }
        let name = Name::parse("a b.example.com").unwrap();
        let _ = observed.a_of(&name).now_or_never().expect("at once");
        assert_eq!(
            *told.lock().unwrap(),
            [
                "example.com MX -> 10 mx.example.com",
                "slow.example MX -> the DNS could not be asked about slow.example: no answer in time",
                "mx.example.com MX -> the name mx.example.com does not exist in the DNS",
                "a b.example.com A -> the name a b.example.com does not exist in the DNS",
            ]
        );
    }
}
