//! The DNS server over real sockets.
#![allow(clippy::unwrap_used)]

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use lab::dns::{Asked, DnsServer, Fault, Zones, address_name, list_name};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut query = Message::new(77, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query.to_vec().unwrap()
}

async fn ask_udp(server: SocketAddr, name: &str, kind: RecordType) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question(name, kind), server).await.unwrap();
    let mut buffer = [0; 4096];
    let (len, _) = socket.recv_from(&mut buffer).await.unwrap();
    Message::from_vec(&buffer[..len]).unwrap()
}

async fn ask_tcp(stream: &mut TcpStream, name: &str, kind: RecordType) -> Message {
    let octets = question(name, kind);
    stream.write_u16(octets.len() as u16).await.unwrap();
    stream.write_all(&octets).await.unwrap();
    let len = stream.read_u16().await.unwrap();
    let mut reply = vec![0; usize::from(len)];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

#[tokio::test]
async fn udp_and_tcp_say_the_same_and_every_question_is_heard() {
    let heard: Arc<Mutex<Vec<Asked>>> = Arc::default();
    let sink = Arc::clone(&heard);
    let zones = Zones::parse(
        "$ORIGIN example.com.\n@ MX 10 mail\nmail A 127.0.2.1\n\
         $ORIGIN 127.in-addr.arpa.\n1.2.0 PTR mail.example.com.\n\
         $ORIGIN blocklist.example.\n66.3.0.127 A 127.0.0.2\n66.3.0.127 TXT \"sends spam\"\n",
    )
    .unwrap();
    let mut server = DnsServer::start(
        "127.0.0.1:0".parse().unwrap(),
        zones,
        Some(Arc::new(move |_, asked: &Asked| {
            sink.lock().unwrap().push(asked.clone())
        })),
    )
    .await
    .unwrap();

    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    let listed = list_name("127.0.3.66".parse().unwrap(), "blocklist.example");
    let reverse = address_name("127.0.2.1".parse().unwrap());
    for (name, kind) in [
        ("example.com.", RecordType::MX),
        (&format!("{listed}."), RecordType::TXT),
        (&format!("{reverse}."), RecordType::PTR),
    ] {
        let udp = ask_udp(server.addr(), name, kind).await;
        let tcp = ask_tcp(&mut stream, name, kind).await;
        assert_eq!(udp.answers, tcp.answers);
        assert_eq!(udp.answers.len(), 1, "{name}");
    }
    let lines: Vec<String> = heard
        .lock()
        .unwrap()
        .iter()
        .step_by(2)
        .map(Asked::to_string)
        .collect();
    assert_eq!(
        lines,
        [
            "example.com MX? 10 mail.example.com",
            "66.3.0.127.blocklist.example TXT? sends spam",
            "1.2.0.127.in-addr.arpa PTR? mail.example.com",
        ]
    );

    server.change(|zones| {
        zones.break_name("example.com", Fault::ServFail);
    });
    let broken = ask_udp(server.addr(), "example.com.", RecordType::MX).await;
    assert_eq!(broken.metadata.response_code, ResponseCode::ServFail);
    server.change(|zones| {
        zones.mend_name("example.com");
    });
    let mended = ask_udp(server.addr(), "example.com.", RecordType::MX).await;
    assert_eq!(mended.answers.len(), 1);

    let other = server.listen("127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    assert_eq!(
        ask_udp(other, "example.com.", RecordType::MX).await.answers,
        mended.answers
    );
    assert_eq!(
        heard.lock().unwrap().len(),
        8,
        "the second address has its own observer"
    );

    let addr = server.addr();
    server.shutdown().await;
    tokio::net::TcpListener::bind(addr).await.unwrap();
}

#[test]
fn names_of_addresses() {
    assert_eq!(
        list_name("2001:db8::1".parse().unwrap(), "l.test"),
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.l.test"
    );
    assert_eq!(
        address_name("192.0.2.1".parse().unwrap()),
        "1.2.0.192.in-addr.arpa"
    );
}
