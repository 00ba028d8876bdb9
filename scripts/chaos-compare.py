#!/usr/bin/env python3
"""Fills the disk below other systems and looks what becomes of them. Started by scripts/chaos-compare.

Every system gets the same: an ext4 of 256 MiB, a client that writes numbered records of 1 KiB one after the other
and waits for each answer, a foreign file that takes all space after 5 s and goes away 20 s later, and 20 s to write
again without a restart. Then everything is read back, the process is killed and started once more, and read again.
The clients of Redis and NATS speak the little of the protocol that they need; that of RabbitMQ is pika.
"""
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

try:
    import pika
    import pika.exceptions
except ImportError:
    pika = None

PAD = "." * 1000
FILL_AFTER_S, FULL_S, AFTER_S = 5, 20, 20


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def which(name):
    for folder in os.environ["PATH"].split(":") + ["/usr/sbin", "/usr/lib/rabbitmq/bin"]:
        if os.access(os.path.join(folder, name), os.X_OK):
            return os.path.join(folder, name)
    raise RuntimeError(f"{name} is not installed")


class Server:
    """A process that can be killed and started again, with its log beside the disk."""

    def __init__(self, folder, data):
        self.folder, self.data, self.port = folder, data, free_port()
        self.log = os.path.join(folder, "log")
        self.process = None

    def spawn(self, arguments, environment=None):
        log = open(self.log, "ab")
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, **(environment or {})}, cwd=self.folder)
        log.close()

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()

    def log_lines(self):
        with open(self.log, "rb") as log:
            return sum(1 for _ in log)

    def wait_ready(self, limit=40):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            try:
                return self.connect()
            except (OSError, RuntimeError) as error:
                last = error
                if not self.alive():
                    with open(self.log, errors="replace") as log:
                        raise RuntimeError("the process has ended: " + log.read()[-200:]) from error
                time.sleep(0.2)
        raise RuntimeError(f"not ready within {limit} s: {last}")


class Lines:
    """A socket that is read by lines and by bytes."""

    def __init__(self, port, timeout=3):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.sock.settimeout(timeout)
        self.file = self.sock.makefile("rb")

    def send(self, data):
        self.sock.sendall(data)

    def line(self):
        line = self.file.readline()
        if not line:
            raise OSError("the connection was closed")
        return line.rstrip(b"\r\n").decode(errors="replace")

    def close(self):
        self.sock.close()


class Redis(Server):
    name = "Redis streams"
    program = "redis-server"

    def start(self):
        self.spawn([which("redis-server"), "--port", str(self.port), "--dir", self.data, "--appendonly", "yes",
                    "--appendfsync", "everysec", "--save", "", "--bind", "127.0.0.1"])

    def connect(self):
        connection = Lines(self.port)
        connection.send(b"PING\r\n")
        # On a full disk even PING is refused; reading is not.
        if connection.line().startswith("-LOADING"):
            raise RuntimeError("it is loading")
        return connection

    @staticmethod
    def command(connection, *parts):
        out = [f"*{len(parts)}\r\n".encode()]
        for part in parts:
            data = part.encode()
            out.append(b"$%d\r\n%s\r\n" % (len(data), data))
        connection.send(b"".join(out))
        return Redis.answer(connection)

    @staticmethod
    def answer(connection):
        line = connection.line()
        kind, rest = line[0], line[1:]
        if kind == "-":
            raise RuntimeError(rest)
        if kind == "$":
            size = int(rest)
            return None if size < 0 else connection.file.read(size + 2)[:-2].decode()
        if kind == "*":
            return [Redis.answer(connection) for _ in range(max(int(rest), 0))]
        return rest

    def produce(self, connection, number):
        self.command(connection, "XADD", "s", "*", "v", f"{number} {PAD}")

    def read_all(self):
        connection, found, after = self.connect(), [], "-"
        connection.sock.settimeout(10)
        while True:
            entries = self.command(connection, "XRANGE", "s", after, "+", "COUNT", "1000")
            if not entries:
                return found
            found += [int(fields[1].split(" ", 1)[0]) for _, fields in entries]
            after = "(" + entries[-1][0]


class Nats(Server):
    name = "NATS JetStream"
    program = "nats-server"

    def start(self):
        self.spawn([which("nats-server"), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", self.data])

    def connect(self):
        connection = Lines(self.port)
        connection.line()
        connection.send(b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true}\r\nPING\r\n')
        while connection.line() != "PONG":
            pass
        connection.inbox = f"_IN.{os.urandom(4).hex()}"
        connection.send(f"SUB {connection.inbox} 1\r\n".encode())
        if not getattr(self, "made", False):
            # A stream file of JetStream's default size would not fit; the limit leaves the disk to fill.
            config = {"name": "s", "subjects": ["s"], "storage": "file", "max_bytes": 120 << 20}
            self.request(connection, "$JS.API.STREAM.CREATE.s", json.dumps(config))
            self.made = True
        return connection

    def request(self, connection, subject, payload):
        data = payload.encode()
        connection.send(f"PUB {subject} {connection.inbox} {len(data)}\r\n".encode() + data + b"\r\n")
        while True:
            line = connection.line()
            if line == "PING":
                connection.send(b"PONG\r\n")
            elif line.startswith("MSG"):
                body = connection.file.read(int(line.split()[-1]) + 2)[:-2].decode()
                answer = json.loads(body)
                if "error" in answer:
                    raise RuntimeError(json.dumps(answer["error"]))
                return answer
            elif line.startswith("HMSG"):
                connection.file.read(int(line.split()[-1]) + 2)
                raise RuntimeError("no responders")
            elif line.startswith("-ERR"):
                raise RuntimeError(line)

    def produce(self, connection, number):
        self.request(connection, "s", f"{number} {PAD}")

    def read_all(self):
        connection, found, sequence = self.connect(), [], 1
        connection.sock.settimeout(10)
        state = self.request(connection, "$JS.API.STREAM.INFO.s", "")["state"]
        for sequence in range(state["first_seq"], state["last_seq"] + 1):
            got = self.request(connection, "$JS.API.STREAM.MSG.GET.s", json.dumps({"seq": sequence}))
            found.append(int(base64.b64decode(got["message"]["data"]).split(b" ", 1)[0]))
        return found


class RabbitMq(Server):
    name = "RabbitMQ streams"
    program = "rabbitmq-server"

    def __init__(self, folder, data):
        super().__init__(folder, data)
        self.dist, self.names = free_port(), free_port()

    def kill(self):
        super().kill()
        # The daemon of names leaves the process group; this one has a port of its own.
        subprocess.run(["epmd", "-port", str(self.names), "-kill"], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=False)

    def start(self):
        if pika is None:
            raise RuntimeError("pika is not installed")
        enabled = os.path.join(self.folder, "enabled_plugins")
        with open(enabled, "w") as file:
            file.write("[].\n")
        with open(os.path.join(self.folder, "rabbitmq.conf"), "w") as file:
            file.write(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        home = os.path.join(self.folder, "home")
        os.makedirs(home, exist_ok=True)
        # The program itself: Debian's wrapper would change to a user who may not use this folder.
        own = "/usr/lib/rabbitmq/bin/rabbitmq-server"
        self.spawn([own if os.path.exists(own) else which("rabbitmq-server")], {
            "HOME": home, "RABBITMQ_NODENAME": f"compare{self.port}@localhost", "RABBITMQ_MNESIA_BASE": self.data,
            "RABBITMQ_LOGS": "-", "RABBITMQ_ENABLED_PLUGINS_FILE": enabled,
            "RABBITMQ_CONFIG_FILE": os.path.join(self.folder, "rabbitmq"), "RABBITMQ_DIST_PORT": str(self.dist),
            "ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_EPMD_PORT": str(self.names), "RABBITMQ_PID_FILE": os.path.join(self.folder, "pid")})

    def open(self):
        parameters = pika.ConnectionParameters(
            "127.0.0.1", self.port, socket_timeout=3, stack_timeout=5, connection_attempts=1,
            blocked_connection_timeout=3, heartbeat=10)
        try:
            connection = pika.BlockingConnection(parameters)
            channel = connection.channel()
            arguments = {"x-queue-type": "stream", "x-stream-max-segment-size-bytes": 10_000_000}
            channel.queue_declare("s", durable=True, arguments=arguments)
        except pika.exceptions.AMQPError as error:
            raise OSError(str(error) or type(error).__name__) from error
        return connection, channel

    def connect(self):
        connection, channel = self.open()
        channel.confirm_delivery()
        return Publisher(connection, channel)

    def produce(self, publisher, number):
        publisher.publish(f"{number} {PAD}")

    def read_all(self):
        connection, channel = self.open()
        found = []
        try:
            channel.basic_qos(prefetch_count=500)
            arguments = {"x-stream-offset": "first"}
            for method, _, body in channel.consume("s", arguments=arguments, inactivity_timeout=5):
                if method is None:
                    break
                found.append(int(body.split(b" ", 1)[0]))
                channel.basic_ack(method.delivery_tag)
            connection.close()
        except pika.exceptions.AMQPError as error:
            raise OSError(str(error) or type(error).__name__) from error
        return found


class Publisher:
    """Publishes with confirms; one that does not come within 3 s ends the connection."""

    def __init__(self, connection, channel):
        self.connection, self.channel = connection, channel
        self.sock = connection._impl._transport._sock
        self.since = None
        self.closed = False
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while not self.closed:
            since = self.since
            if since is not None and time.monotonic() - since > 3:
                self.closed = True
                try:
                    self.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            time.sleep(0.2)

    def publish(self, text):
        self.since = time.monotonic()
        try:
            self.channel.basic_publish("", "s", text.encode(), pika.BasicProperties(delivery_mode=2), mandatory=True)
        except pika.exceptions.AMQPError as error:
            text = "no answer" if self.closed else str(error) or type(error).__name__
            raise OSError(text) from error
        finally:
            self.since = None

    def close(self):
        self.closed = True
        try:
            self.sock.close()
        except OSError:
            pass


class Client(threading.Thread):
    """Writes one record after the other for as long as it is let."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.stop = server, False
        self.acked, self.refused, self.errors = [], [], {}

    def run(self):
        connection, number = None, 0
        while not self.stop:
            number += 1
            try:
                connection = connection or self.server.connect()
                self.server.produce(connection, number)
                self.acked.append((time.monotonic(), number))
            except (OSError, RuntimeError, ValueError, KeyError) as error:
                self.refused.append(time.monotonic())
                text = "no answer" if isinstance(error, (TimeoutError, socket.timeout)) else str(error)[:110]
                self.errors[text] = self.errors.get(text, 0) + 1
                if isinstance(error, OSError):
                    if connection:
                        connection.close()
                    connection = None
                time.sleep(0.05)


def lost_of(server, acked):
    """Acknowledged records that are not there, or what kept us from asking."""
    try:
        found = set(server.read_all())
        return sum(1 for number in acked if number not in found)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        return f"not readable: {str(error)[:60] or type(error).__name__}"


def fill(path):
    file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    at, step = 0, 4 << 20
    end = time.monotonic() + 2
    while step >= 4096 or time.monotonic() < end:
        try:
            os.posix_fallocate(file, at, max(step, 4096))
            at += step
        except OSError:
            step //= 4
            if step < 4096:
                step = 4096
                time.sleep(0.05)
                if time.monotonic() >= end:
                    break
    os.close(file)


def drill(kind):
    folder = tempfile.mkdtemp(prefix="plimsoll-compare-", dir="/tmp")
    os.chmod(folder, 0o755)
    backing, disk = os.path.join(folder, "backing"), os.path.join(folder, "disk")
    os.makedirs(backing)
    os.makedirs(disk)
    server, mounted = None, []
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "compare", backing], check=True)
        mounted.append(backing)
        image = os.path.join(backing, "image")
        with open(image, "wb") as file:
            file.truncate(256 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, disk], check=True)
        mounted.append(disk)
        data = os.path.join(disk, "data")
        os.makedirs(data)
        server = kind(folder, data)
        server.start()
        server.wait_ready().close()
        client = Client(server)
        client.start()
        time.sleep(FILL_AFTER_S)
        before = server.log_lines()
        filler = os.path.join(disk, "foreign-file")
        fill(filler)
        full = time.monotonic()
        client.errors.clear()
        time.sleep(FULL_S / 2)
        readable = lost_of(server, [number for at, number in client.acked if at < full - 3])
        time.sleep(max(0.0, full + FULL_S - time.monotonic()))
        during = sum(1 for at, _ in client.acked if at > full)
        errors = dict(client.errors)
        lines = server.log_lines() - before
        os.unlink(filler)
        freed = time.monotonic()
        time.sleep(AFTER_S)
        again = [at - freed for at, _ in client.acked if at > freed]
        survived = server.alive()
        client.stop = True
        client.join(10)
        acked = [number for _, number in client.acked]
        lost = lost_of(server, acked)
        server.kill()
        server.start()
        try:
            server.wait_ready().close()
            after_kill = lost_of(server, acked)
        except RuntimeError as error:
            after_kill = f"does not start: {error}"
        worst = max(errors.items(), key=lambda item: item[1], default=("no answer", 0))
        return {
            "system": kind.name, "client": worst[0], "acked_while_full": during, "log_lines": lines,
            "survives": survived, "readable_while_full": readable if isinstance(readable, str) else "yes",
            "writable_again_s": round(again[0], 2) if again else None, "acked": len(acked), "lost": lost,
            "lost_after_kill": after_kill}
    finally:
        if server:
            server.kill()
        for path in reversed(mounted):
            subprocess.run(["umount", "-l", path], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def main():
    kinds = {"nats": Nats, "redis": Redis, "rabbitmq": RabbitMq}
    print("| system | the client gets | acknowledged while full | log lines in 20 s | survives | readable while full | "
          "writable again without restart | acknowledged records lost | the same after kill -9 |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in sys.argv[1:]:
        try:
            row = drill(kinds[name])
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            error = str(error).replace("\n", " ")
            print(f"| {kinds[name].name} | not run: {error} | | | | | | | |", flush=True)
            continue
        again = "never" if row["writable_again_s"] is None else f"{row['writable_again_s']} s"
        print(f"| {row['system']} | `{row['client']}` | {row['acked_while_full']} | {row['log_lines']} | "
              f"{'yes' if row['survives'] else 'no'} | {row['readable_while_full']} | {again} | {row['lost']} of "
              f"{row['acked']} | {row['lost_after_kill']} |", flush=True)


if __name__ == "__main__":
    main()
