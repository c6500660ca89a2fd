//! The real resolver against a name server on loopback that answers as name servers do, well and
//! badly: none, nothing and "could not find out" stay apart.
#![allow(clippy::unwrap_used)]

use dns::hickory::{HickoryResolver, NEGATIVE_TTL_SECS_DEFAULT, Options};
use dns::{DnsError, Mx, Name, NamedMx, Resolver};
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, PTR, SOA, TXT};
use hickory_resolver::proto::rr::{Name as WireName, RData, Record, RecordType};
use mail::Domain;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

fn d(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn wire(text: &str) -> WireName {
    let mut name =
        WireName::from_labels(text.split('.').filter(|l| !l.is_empty()).map(str::as_bytes)).unwrap();
    name.set_fqdn(true);
    name
}

fn soa() -> Record {
    let data = SOA::new(wire("ns.test"), wire("root.test"), 1, 60, 60, 60, 77);
    Record::from_rdata(wire("test"), 99, RData::SOA(data))
}

/// What the server answers; `None` is silence.
fn answer(question: &Message, over_tcp: bool) -> Option<Message> {
    let query = question.queries.first()?.clone();
    let labels: Vec<String> = query
        .name()
        .iter()
        .map(|l| String::from_utf8_lossy(l).to_lowercase())
        .collect();
    let name = labels.join(".");
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    let owner = query.name().clone();
    reply.add_query(query.clone());
    let mut add = |data: RData| {
        reply.add_answer(Record::from_rdata(owner.clone(), 300, data));
    };
    match (name.as_str(), query.query_type()) {
        ("host.test", RecordType::A) => add(RData::A(A::new(192, 0, 2, 1))),
        ("host.test", RecordType::AAAA) => add(RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
        ("host.test", RecordType::TXT) => {
            add(RData::TXT(TXT::new(vec![
                "v=spf1 ".to_owned(),
                "-all".to_owned(),
            ])));
        }
        ("host.test", RecordType::MX) => {
            add(RData::MX(MX::new(20, wire("MX2.Host.TEST"))));
            add(RData::MX(MX::new(10, wire("bad name.test"))));
        }
        ("null.test", RecordType::MX) => add(RData::MX(MX::new(0, WireName::root()))),
        ("1.2.0.192.in-addr.arpa", RecordType::PTR) => {
            add(RData::PTR(PTR(wire("Host.Test"))));
            add(RData::PTR(PTR(wire("not!a!host.test"))));
        }
        ("o'neil x.test", RecordType::A) => add(RData::A(A::new(127, 0, 0, 1))),
        ("alias.test", RecordType::A) => {
            add(RData::CNAME(CNAME(wire("host.test"))));
            let target = Record::from_rdata(wire("host.test"), 5, RData::A(A::new(192, 0, 2, 1)));
            reply.add_answer(target);
        }
        ("dangling.test", _) => {
            add(RData::CNAME(CNAME(wire("nowhere.test"))));
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(soa());
        }
        ("big.test", RecordType::TXT) if !over_tcp => reply.metadata.truncation = true,
        ("big.test", RecordType::TXT) => add(RData::TXT(TXT::new(vec!["x".repeat(255); 8]))),
        ("nosoa.test", _) => {}
        ("servfail.test", _) => reply.metadata.response_code = ResponseCode::ServFail,
        ("refused.test", _) => reply.metadata.response_code = ResponseCode::Refused,
        ("notimp.test", _) => reply.metadata.response_code = ResponseCode::NotImp,
        ("silent.test", _) => return None,
        ("host.test" | "null.test", _) => {
            reply.add_authority(soa());
        }
        _ => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(soa());
        }
    }
    Some(reply)
}

/// Starts the server; gives its address and a counter of questions.
async fn serve() -> (SocketAddr, Arc<AtomicUsize>) {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = udp.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::SeqCst);
            let question = Message::from_vec(&buffer[..length]).unwrap();
            if let Some(reply) = answer(&question, false) {
                udp.send_to(&reply.to_vec().unwrap(), peer).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            while let Ok(length) = stream.read_u16().await {
                let mut buffer = vec![0; usize::from(length)];
                stream.read_exact(&mut buffer).await.unwrap();
                let question = Message::from_vec(&buffer).unwrap();
                let Some(reply) = answer(&question, true) else {
                    break;
                };
                let bytes = reply.to_vec().unwrap();
                stream
                    .write_u16(u16::try_from(bytes.len()).unwrap())
                    .await
                    .unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        }
    });
    (address, asked)
}

async fn resolver() -> (HickoryResolver, Arc<AtomicUsize>) {
    let (address, asked) = serve().await;
    let options = Options {
        servers: vec![address],
        timeout: Duration::from_millis(300),
        attempts: 1,
        ..Options::default()
    };
    (HickoryResolver::new(&options).unwrap(), asked)
}

#[tokio::test]
async fn records_of_every_kind() {
    let (r, asked) = resolver().await;
    let a = r.a(&d("host.test")).await.unwrap();
    assert_eq!(a.records, ["192.0.2.1".parse::<std::net::Ipv4Addr>().unwrap()]);
    assert!(a.ttl_secs <= 300 && a.ttl_secs > 290);
    let six = r.aaaa(&d("host.test")).await.unwrap().records;
    assert_eq!(six, ["2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap()]);
    let txt = r.txt(&d("host.test")).await.unwrap().records;
    assert_eq!(txt, [b"v=spf1 -all".to_vec()]);
    let mx = r.mx(&d("host.test")).await.unwrap().records;
    assert_eq!(
        mx,
        [Mx {
            preference: 20,
            exchange: Some(d("mx2.host.test"))
        }]
    );
    let any = r.mx_of(&Name::parse("host.test").unwrap()).await.unwrap().records;
    assert!(any.contains(&NamedMx {
        preference: 10,
        exchange: Some(Name::parse("bad name.test").unwrap())
    }));
    let null = r.mx(&d("null.test")).await.unwrap().records;
    assert_eq!(
        null,
        [Mx {
            preference: 0,
            exchange: None
        }]
    );
    let names = r.ptr("192.0.2.1".parse().unwrap()).await.unwrap().records;
    assert_eq!(names, [d("host.test")]);
    let odd = r
        .a_of(&Name::parse("O'Neil x.test").unwrap())
        .await
        .unwrap()
        .records;
    assert_eq!(odd.len(), 1);
    let alias = r.a(&d("alias.test")).await.unwrap();
    assert_eq!(alias.records.len(), 1);
    let big = r.txt(&d("big.test")).await.unwrap().records;
    assert_eq!(big[0].len(), 8 * 255, "asked again over TCP");
    let before = asked.load(Ordering::SeqCst);
    r.a(&d("host.test")).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), before, "kept in memory");
}

#[tokio::test]
async fn none_nothing_and_unknown_stay_apart() {
    let (r, _) = resolver().await;
    let nothing = r.mx(&d("alias.host.test")).await;
    assert_eq!(nothing, Err(DnsError::NoSuchName("alias.host.test".to_owned())));
    let dangling = r.a(&d("dangling.test")).await;
    assert_eq!(dangling, Err(DnsError::NoSuchName("dangling.test".to_owned())));
    let nodata = r.txt(&d("null.test")).await.unwrap();
    assert!(nodata.records.is_empty());
    assert!(nodata.ttl_secs <= 77);
    let bare = r.a(&d("nosoa.test")).await.unwrap();
    assert_eq!(
        (bare.records.len(), bare.ttl_secs),
        (0, NEGATIVE_TTL_SECS_DEFAULT)
    );
    for (name, part) in [
        ("servfail.test", "Server Failure"),
        ("refused.test", "Refused"),
        ("notimp.test", ""),
        ("silent.test", ""),
    ] {
        let error = r.a(&d(name)).await.unwrap_err();
        assert!(error.is_temporary(), "{name}: {error}");
        assert!(error.to_string().contains(part), "{name}: {error}");
    }
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_silent() {
    let (address, asked) = serve().await;
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let options = Options {
        servers: vec![dead.local_addr().unwrap(), address],
        timeout: Duration::from_millis(300),
        attempts: 1,
        ..Options::default()
    };
    let r = HickoryResolver::new(&options).unwrap();
    assert_eq!(r.a(&d("host.test")).await.unwrap().records.len(), 1);
    // From now on the one that answered is asked first, and the silent one no more.
    let mut buffer = [0; 512];
    while dead.try_recv(&mut buffer).is_ok() {}
    assert_eq!(r.aaaa(&d("host.test")).await.unwrap().records.len(), 1);
    assert!(dead.try_recv(&mut buffer).is_err());
    assert!(asked.load(Ordering::SeqCst) >= 2);
    assert!(r.a(&d("silent.test")).await.unwrap_err().is_temporary());
}
