//! The commands, one module each.

mod check;
mod deliveries;
mod demo;
mod events;
mod listen;
mod plugin_logs;
pub(crate) mod plugins;
mod push;
mod queue;
mod serve;

use clap::CommandFactory as _;

use crate::args::{
    Cli, Command, Config as ConfigCommand, Deliveries, Event, Events, Plugins, Queue,
};
use crate::config::Config;
use crate::logging;

/// Runs what was asked for.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { global, command } = cli;
    let json = global.json;
    match command {
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "wasmhook",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        Command::CompileComponent { .. } => anyhow::bail!("the host alone compiles this way"),
        Command::Demo(demo) => demo::run(demo, json).await,
        Command::Listen(listen) => listen::run(&listen, json).await,
        Command::Serve => {
            let config = Config::load(&global)?;
            logging::start(&config.log)?;
            serve::run(&config).await
        }
        Command::Event(Event::Push(push)) => push::run(&Config::load(&global)?, push, json).await,
        Command::Events(Events::Rejected { limit }) => {
            events::rejected(&Config::load(&global)?, limit, json).await
        }
        Command::Deliveries(command) => {
            let config = Config::load(&global)?;
            match command {
                Deliveries::List {
                    tenant,
                    state,
                    limit,
                    cursor,
                } => deliveries::list(&config, tenant, state, limit, cursor, json).await,
                Deliveries::Show {
                    id,
                    tenant,
                    response,
                } => deliveries::show(&config, &id, tenant, response, json).await,
                Deliveries::Replay {
                    tenant,
                    ids,
                    dead_letters,
                } => deliveries::replay(&config, &tenant, &ids, dead_letters, json).await,
            }
        }
        Command::Queue(Queue::Check { repair }) => {
            queue::check(&Config::load(&global)?, repair, json).await
        }
        Command::Plugins(Plugins::List { tenant }) => {
            plugins::list(&Config::load(&global)?, tenant.as_deref(), json).await
        }
        Command::Plugins(Plugins::Logs {
            tenant,
            name,
            lines,
            follow,
        }) => {
            let config = Config::load(&global)?;
            let wanted = plugin_logs::Wanted {
                tenant,
                plugin: name,
                lines,
            };
            plugin_logs::run(&config, &wanted, follow, json).await
        }
        Command::Plugins(Plugins::Check { file }) => {
            plugins::check(&Config::load(&global)?, &file, json).await
        }
        Command::Config(ConfigCommand::Check) => check::run(&Config::load(&global)?, json).await,
    }
}
