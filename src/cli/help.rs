//! The help texts.

pub(super) const TOP: &str = "\
letta: an always-on remote environment for Letta Code agents.

Usage: letta <command> [options]

Commands:
  server        Connect this machine to Letta and run agents' tools here
  cron          Schedule prompts: once, or again and again
  stop          Stop the servers that run on this machine
  doctor        Say whether work can reach this machine, and what is in its way
  login         Sign in to Letta Cloud and save the login
  logout        Sign out and forget the saved login
  permissions   Say what the permission rules would do with a tool call
  healthcheck   Ask a running server on this machine how it is
  version       Print the protocol version and the version of this program

Start:
  letta server --env-name my-laptop

It prints an address and a code when nobody is signed in. Set LETTA_API_KEY to
skip that. Agents may run commands on this machine: start with
--permission-mode standard to be asked before anything is changed.

letta <command> --help says more.
";

pub(super) const SERVER: &str = "\
Connect this machine to Letta and run agents' tools here, for ever.

Usage: letta server [options]        (letta remote is the same)

Options:
  --env-name NAME          Name of this computer in chat.letta.com; saved for the
                           working directory (also --computer-name, LETTA_ENV_NAME)
  --permission-mode MODE   standard      asks before commands and changes of files
                           acceptEdits   asks before commands
                           plan          changes nothing but a plan
                           strict        asks before everything
                           unrestricted  asks nothing (the default)
  --skills DIR             Directory of skills that this computer supplies
  --detach                 Start in the background and return; letta stop ends it
  --debug                  Print every step and every frame
  -h, --help               Show this text

Without Letta Cloud (docs/direct-mode.md):
  --listen [ws://HOST:PORT]  Serve clients directly; without a URL at a free port
                           of this machine
  --register               Register with Letta Cloud as well
  --ui                     Serve a chat page for browsers at /ui
  --openai-api             Serve the OpenAI-compatible API at /v1
  --ws-auth MODE           capability-token (--ws-token-file FILE or
                           --ws-token-sha256 HEX) or signed-bearer-token
                           (--ws-shared-secret-file FILE, --ws-issuer NAME,
                           --ws-audience NAME, --ws-max-clock-skew-seconds N);
                           needed on every address but loopback

Most used variables:
  LETTA_API_KEY            Key to the Letta API; else the saved login
  LETTA_BASE_URL           Another server than https://api.letta.com
  LETTA_HEALTH_ADDR        Address of the health endpoints (127.0.0.1:8080), or off
  LETTA_DRAIN_SECONDS      How long a running tool may finish after SIGTERM (20)

docs/configuration.md lists every flag, variable and file.

Exit codes: 0 stopped, 64 usage, 69 replaced or already running, 70 a defect
of this program, 75 stuck, 77 credentials refused, 78 configuration.
";

pub(super) const HEALTHCHECK: &str = "\
Ask the server on this machine how it is; for container health checks.

Usage: letta healthcheck [--ready]

Without --ready: 0 while the process works, connected or not.
With --ready:    0 only while it is connected.
";

pub(super) const CRON: &str = "\
Schedule prompts for an agent: once, or again and again.

Usage:
  letta cron add --name NAME --description TEXT --prompt TEXT
                 --every 5m | --at \"3:00pm\" | --cron \"0 9 * * 1-5\" [options]
  letta cron list [--agent ID] [--conversation ID] [--runner local|cloud]
  letta cron get <id|name>
  letta cron runs --id ID [--limit N] [--run-id ID]
  letta cron delete <id|name>          (remove is the same)
  letta cron delete --all [--agent ID]

Options of add:
  --every INTERVAL         30s, 5m, 2 hours, 1d; rounded to what divides evenly
  --at TIME                Once: \"3:00pm\", \"in 45m\", \"in 2h\"
  --cron EXPRESSION        minute hour day-of-month month day-of-week
  --agent ID               The agent (LETTA_AGENT_ID)
  --conversation ID        new (the default): a conversation for each fire;
                           self: the one that runs this command; default; or an id
  --expires DURATION       End of a recurring task: 12h, 7d or never (3d)
  --cloud                  Let the cloud fire it (also --runner cloud)
  --computer DEVICE_ID     The cloud fires it on that computer

Options of all:
  --runner local|cloud     Only tasks of this computer, or only those of the cloud
  --json                   JSON on a terminal, too; elsewhere it is always JSON

Tasks of this computer fire while `letta server` runs here. docs/scheduling.md
says more. Exit codes: 0 done, 1 failed, 64 usage.
";

pub(super) const STOP: &str = "\
Stop the servers of this home directory, in the background or not.

Usage: letta stop [--now]

A running tool may finish first (LETTA_DRAIN_SECONDS); --now does not wait for it.

Exit codes: 0 none runs any more, 75 one is still at work, 78 configuration.
";

pub(super) const DOCTOR: &str = "\
Say whether work can reach this machine, and what is in its way.

Usage: letta doctor [--json]

Looks at the name server, the connection, certificates, proxies, the clock, the
credentials, the files, the shell, git, disk, memory and the running server.
Changes nothing, and runs beside a server. Give it the server's environment.

Exit codes: 0 work can reach this machine, 1 it cannot, 78 configuration.
";
