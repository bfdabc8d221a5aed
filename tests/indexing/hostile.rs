//! Services that answer wrongly, endlessly, or never, and one that pretends to be another.

use futures_util::StreamExt;
use zbus::message::Type;
use zbus::{Connection, MessageStream, interface};

use super::world::{World, block_on, payloads};

/// Asks for nothing of login1's that it does not have; a stranger has it as well.
struct Manager;

#[interface(name = "org.freedesktop.login1.Manager")]
impl Manager {
    /// Switches the machine off.
    async fn power_off(&self, _interactive: bool) {}
}

/// A service that starts late in the alphabet.
struct Zebra;

#[interface(name = "com.example.Zebra1")]
impl Zebra {
    /// Runs across the savanna.
    async fn run(&self) {}
}

/// Answers every call with what `answer` makes of the object's path, or not at all.
fn answering(connection: &Connection, answer: impl Fn(&str) -> Option<String> + Send + 'static) {
    let connection = connection.clone();
    let mut stream = MessageStream::from(&connection);
    block_on(async {
        tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                let header = message.header();
                if header.message_type() != Type::MethodCall {
                    continue;
                }
                let path = header.path().map(ToString::to_string).unwrap_or_default();
                if let Some(xml) = answer(&path) {
                    connection.reply(&header, &xml).await.unwrap();
                }
            }
        });
    });
}

#[test]
fn no_service_holds_up_the_others_or_takes_what_is_anothers() {
    let world = World::new("");
    let serve = |name: &str, answer: fn(&str) -> Option<String>| {
        let connection = world.connect();
        answering(&connection, answer);
        block_on(connection.request_name(name.to_owned())).unwrap();
        connection
    };
    let _kept = [
        serve("com.example.Endless", |path| {
            let name = format!("com.example.Endless.I{}", path.len());
            Some(format!(
                "<node><interface name='{name}'><method name='Go'/></interface>\
                 <node name='a'/><node name='b'/><node name='c'/></node>"
            ))
        }),
        serve("com.example.Huge", |_| {
            let children: String = (0..200_000).map(|n| format!("<node name='n{n}'/>")).collect();
            Some(format!("<node>{children}</node>"))
        }),
        serve("com.example.Silent", |_| None),
        serve("com.example.Wrong", |_| Some("<node><interface name='1'/></node>".to_owned())),
    ];
    let own = |name: &'static str, path: &'static str| {
        let connection = world.connect();
        block_on(connection.object_server().at(path, Manager)).unwrap();
        block_on(connection.request_name(name)).unwrap();
        connection
    };
    let _stranger = own("com.example.Stranger", "/stranger");
    let real = own("org.freedesktop.login1", "/org/freedesktop/login1");
    let zebra = world.connect();
    block_on(zebra.object_server().at("/zebra", Zebra)).unwrap();
    block_on(zebra.request_name("com.example.Zebra")).unwrap();

    let served = world.serve(&[]);
    world.wait_for("run across the grass", "method:com.example.Zebra1.Run");
    world.wait_for_pass();
    let log = world.end(served);
    assert!(log.contains("SILENT=1"), "{log}");
    let members = payloads(&world.export("dbus"));
    let power_off = &members["method:org.freedesktop.login1.Manager.PowerOff"];
    assert_eq!(power_off["service"], "org.freedesktop.login1");
    assert_eq!(power_off["path"], "/org/freedesktop/login1");
    let is_endless = |key: &&String| key.starts_with("method:com.example.Endless.");
    let endless_count = members.keys().filter(is_endless).count();
    assert!((1..=16).contains(&endless_count), "{endless_count}");

    // While the real one is away, the stranger gets nothing of it either.
    block_on(real.release_name("org.freedesktop.login1")).unwrap();
    let served = world.serve(&[]);
    world.wait_for_pass();
    world.end(served);
    assert_eq!(payloads(&world.export("dbus")), members);
}
