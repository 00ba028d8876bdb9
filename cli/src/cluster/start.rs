//! `plimsoll cluster start --local`.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Args;
use plimsoll_client::Client;
use plimsoll_host::config::{ByteSize, Span};
use plimsoll_host::{BindError, Host};
use plimsoll_proto::v1::SpuState;
use plimsoll_spu::SpuSettings;
use serde::Serialize;

use super::local::{DirArgs, Local, Member, Process, Role};
use crate::change::{Change, ChangeArgs, quoted};
use crate::connect::CONTROLLERS_DEFAULT;
use crate::exit::{Code, Failure, Outcome};
use crate::files;
use crate::output::{say, write_out};

const LOOK_PAUSE: Duration = Duration::from_millis(100);
const PORT_DEFAULT: u16 = 7001;
const BYTE_LIMIT_DEFAULT: ByteSize = ByteSize(1 << 30);

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// On this machine; the only kind there is, named so that nobody starts one by mistake
    #[arg(long, required = true)]
    local: bool,
    /// Storage nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    spus: u32,
    /// Controllers; 1, 3 or 5
    #[arg(long, default_value_t = 3, value_parser = controllers)]
    controllers: u32,
    /// First port; controllers take it and those behind it, storage nodes start ten further [default: 7001]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port: Option<u16>,
    /// Bytes that each storage node that is started may use, whatever their common filesystem has [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    byte_limit: Option<ByteSize>,
    /// How long it may take until every node is online
    #[arg(long, default_value = "60s")]
    timeout: Span,
    #[command(flatten)]
    dir: DirArgs,
    #[command(flatten)]
    change: ChangeArgs,
}

/// An even number bears the loss of no more controllers than one less.
fn controllers(text: &str) -> Result<u32, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("1, 3 or 5".to_owned()),
    }
}

impl StartArgs {
    fn port(&self) -> u16 {
        self.port.unwrap_or(PORT_DEFAULT)
    }

    fn byte_limit(&self) -> ByteSize {
        self.byte_limit.unwrap_or(BYTE_LIMIT_DEFAULT)
    }
}

/// What a local cluster consists of, for programs.
#[derive(Serialize)]
struct Started {
    dir: String,
    /// For `--controller`.
    controllers: Vec<String>,
    processes: Vec<Process>,
}

pub(crate) async fn run(args: StartArgs, host: &Host) -> Outcome {
    let dir = args.dir.path()?;
    let found = Local::load(&dir)?;
    let is_new = found.is_none();
    let local = match found {
        Some(local) => known(&args, &dir, local)?,
        None => fresh(&args)?,
    };
    let before = local.processes(&dir);
    let running = local.running(&dir).len();
    if running == local.members.len() {
        let already = format!("the cluster in {} is running already", dir.display());
        if args.change.output.for_people() {
            say(already);
            return how_to_go_on(&local, &dir);
        }
        return told(&args, &local, &dir, before, &already, already.clone());
    }
    let missing: Vec<&Member> =
        local.members.iter().filter(|member| member.running(&dir).is_none()).collect();
    for member in &missing {
        if member.role == Role::Spu {
            check_spu(&args, &local, member, &dir)?;
        }
        check_port(host, &member.address).await?;
    }
    if args.change.dry_run {
        let names: Vec<String> = missing.iter().map(|member| member.name()).collect();
        let would = format!("start {} in {}", names.join(", "), dir.display());
        return told(&args, &local, &dir, before, &would, String::new());
    }
    if is_new {
        make(&local, &dir)?;
    }
    let mut children = Vec::new();
    for member in missing {
        let child = spawn(&args, &local, member, &dir)?;
        member.started(&dir, child.id())?;
        children.push((member, child));
    }
    wait_online(&args, host, &local, &dir, &mut children).await?;
    let started = |role| children.iter().filter(|(member, _)| member.role == role).count();
    let done = format!(
        "started {} controllers and {} storage nodes in {}",
        started(Role::Controller),
        started(Role::Spu),
        dir.display()
    );
    let now = local.after_start(&dir, before);
    told(&args, &local, &dir, now, &done, done.clone())
}

/// Tells people how to go on, and programs what there is now.
fn told(
    args: &StartArgs,
    local: &Local,
    dir: &Path,
    processes: Vec<Process>,
    would: &str,
    done: String,
) -> Outcome {
    if args.change.output.for_people() && !args.change.dry_run {
        say(done);
        return how_to_go_on(local, dir);
    }
    let controllers = local.of(Role::Controller).map(|member| member.address.clone()).collect();
    let started = Started { dir: dir.display().to_string(), controllers, processes };
    let undo = format!("plimsoll cluster stop --dir {}", quoted(&dir.display().to_string()));
    Change::with(args.change, would, done, started).undo(undo).print(args.change)
}

/// A cluster that was here before is started again as it was: its data are.
fn known(args: &StartArgs, dir: &Path, local: Local) -> Result<Local, Failure> {
    let (spus, controllers) = (local.of(Role::Spu).count(), local.of(Role::Controller).count());
    let asked = (usize::try_from(args.spus).unwrap_or(0), usize::try_from(args.controllers).unwrap_or(0));
    if (spus, controllers) != asked {
        say(format!(
            "{} holds a cluster of {controllers} controllers and {spus} storage nodes; starting that (for another, give another --dir)",
            dir.display()
        ));
    }
    let first = local.of(Role::Controller).next().and_then(|member| member.address.rsplit_once(':'));
    if let (Some(asked), Some((_, port))) = (args.port, first)
        && asked.to_string() != port
    {
        say(format!("--port {asked} is not used: the cluster in {} has port {port}", dir.display()));
    }
    if args.byte_limit.is_some() && local.of(Role::Spu).any(|member| member.running(dir).is_some()) {
        say("--byte-limit is not used for storage nodes that run already");
    }
    Ok(local)
}

fn fresh(args: &StartArgs) -> Result<Local, Failure> {
    let member = |role, id: u32, first: u32| {
        let port = u32::from(args.port()) + first + id - 1;
        if port > u32::from(u16::MAX) {
            return Err(Failure::new(
                Code::Usage,
                format!("--port {} leaves no room for all nodes", args.port()),
            ));
        }
        Ok(Member { role, id, address: format!("127.0.0.1:{port}") })
    };
    let controllers = (1..=args.controllers).map(|id| member(Role::Controller, id, 0));
    let spus = (1..=args.spus).map(|id| member(Role::Spu, id, 10));
    Ok(Local::new(controllers.chain(spus).collect::<Result<_, _>>()?))
}

/// Makes the folders of a new cluster.
fn make(local: &Local, dir: &Path) -> Outcome {
    for member in &local.members {
        let data = dir.join(member.name());
        std::fs::create_dir_all(&data)
            .map_err(|error| Failure::new(Code::Failed, format!("{}: {error}", data.display())))?;
    }
    local.save(dir)
}

/// What the node itself would refuse to start with.
fn check_spu(args: &StartArgs, local: &Local, member: &Member, dir: &Path) -> Outcome {
    let settings = SpuSettings {
        id: member.id,
        data_dirs: vec![dir.join(member.name())],
        listen: member.address.clone(),
        advertise: Some(member.address.clone()),
        controllers: local.controllers(),
        byte_limit: Some(args.byte_limit()),
        ..SpuSettings::default()
    };
    Ok(settings.validate()?)
}

async fn check_port(host: &Host, address: &str) -> Outcome {
    match host.network.bind(address).await {
        Ok(listener) => {
            drop(listener);
            Ok(())
        }
        Err(error @ BindError::AddressInUse { .. }) => Err(Failure::new(
            Code::PortInUse,
            format!("{error}; stop it, or start a new cluster with another --port and --dir"),
        )),
        Err(error) => Err(Failure::new(Code::Failed, error.to_string())),
    }
}

fn spawn(args: &StartArgs, local: &Local, member: &Member, dir: &Path) -> Result<Child, Failure> {
    let binary = std::env::current_exe()?;
    let mut command = Command::new(binary);
    match member.role {
        Role::Controller => command.args(["controller", "run", "--bootstrap"]),
        Role::Spu => command.args(["spu", "run", "--advertise", &member.address]),
    };
    command.args(["--id", &member.id.to_string(), "--listen", &member.address]);
    command.arg("--data-dir").arg(dir.join(member.name()));
    for controller in local.controllers() {
        command.args(["--controller", &controller]);
    }
    if member.role == Role::Spu {
        command.args(["--byte-limit", &args.byte_limit().0.to_string()]);
    }
    // What is set for clients must not reach the servers.
    let ours: Vec<_> = std::env::vars_os()
        .map(|(key, _)| key)
        .filter(|key| key.to_string_lossy().starts_with("PLIMSOLL_") && key != "PLIMSOLL_LOG")
        .collect();
    for key in ours {
        command.env_remove(key);
    }
    let log = member.log(dir);
    // A process group of its own: Ctrl-C in this terminal is not meant for it.
    let spawned = command
        .stdin(Stdio::null())
        .stdout(files::log(&log)?)
        .stderr(files::log(&log)?)
        .process_group(0)
        .spawn();
    spawned.map_err(|error| Failure::new(Code::Failed, format!("starting {}: {error}", member.name())))
}

async fn wait_online(
    args: &StartArgs,
    host: &Host,
    local: &Local,
    dir: &Path,
    children: &mut [(&Member, Child)],
) -> Outcome {
    let deadline = host.clock.now().saturating_add(args.timeout.0);
    let mut client: Option<Client> = None;
    loop {
        for (member, child) in children.iter_mut() {
            if let Some(status) = child.try_wait()? {
                member.stopped(dir)?;
                let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
                let tail = files::tail(&member.log(dir), 10);
                let message = format!(
                    "{} ended at once ({status}); the end of {}:\n{tail}\nthe others run on; stop them with `plimsoll cluster stop --dir {}`",
                    member.name(),
                    member.log(dir).display(),
                    dir.display()
                );
                return Err(Failure { code: code.unwrap_or(Code::Failed as u8), message });
            }
        }
        if client.is_none() {
            let building = Client::builder()
                .host(host.clone())
                .controllers(local.controllers())
                .connect_timeout(Duration::from_millis(500));
            client = building.build().await.ok();
        }
        if let Some(client) = &client {
            let wanted = local.of(Role::Spu).count();
            let online = client.wait_metadata(LOOK_PAUSE, |image| {
                let online = image.spus.values().filter(|spu| spu.state() == SpuState::Online).count();
                online >= wanted && image.controller_leader.is_some()
            });
            if online.await {
                return Ok(());
            }
        } else {
            host.clock.sleep(LOOK_PAUSE).await;
        }
        if host.clock.now() >= deadline {
            let message = format!(
                "not every node is online after {}; see the logs in {}, and `plimsoll cluster status --local --dir {}`",
                args.timeout,
                dir.display(),
                dir.display()
            );
            return Err(Failure::new(Code::TimedOut, message));
        }
    }
}

fn how_to_go_on(local: &Local, dir: &Path) -> Outcome {
    let addresses: Vec<&str> = local.of(Role::Controller).map(|member| member.address.as_str()).collect();
    let addresses = addresses.join(",");
    let mut text = format!("controllers: {addresses}\n\n");
    // Clients try these by themselves.
    if !CONTROLLERS_DEFAULT.starts_with(&addresses) {
        text.push_str(&format!("  export PLIMSOLL_CONTROLLER={addresses}\n"));
    }
    let replicas = local.of(Role::Spu).count().min(3);
    text.push_str(&format!(
        "  plimsoll topic create hello --partitions 3 --replicas {replicas}\n  \
           seq 1 1000 | plimsoll produce hello\n  \
           plimsoll consume hello --from earliest --until-end\n  \
           plimsoll disk\n  \
           plimsoll cluster stop --dir {}\n",
        dir.display()
    ));
    write_out(text.as_bytes())
}
