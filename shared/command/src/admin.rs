//! Administration: tenants, models, keys, callers and webhooks, written straight to the registry. Who may do it is IAM's business.

mod apply;
mod callers;
mod file;
mod jobs;
mod keys;
mod quota;
mod show;
mod verify;
mod webhooks;

use std::{
    io::{Write, stdout},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use spillway::{
    app::{App, Clients, aws},
    broker,
    config::Config,
    store::{StoreError, ledger::Ledger},
    telemetry::Telemetry,
};

pub use apply::Change;
pub use file::Entries;
pub use webhooks::Webhooks;

/// What there is to administer.
#[derive(Debug, clap::Subcommand)]
pub enum Admin {
    /// Tenants: who may use how much
    Tenants(Scoped<Tenants>),
    /// Models: what callers name, and the pools that answer
    Models(Scoped<Models>),
    /// Keys: what callers present
    Keys(Scoped<Keys>),
    /// Callers: identities of AWS that stand for a tenant without a key
    Callers(Scoped<Callers>),
    /// Webhooks: servers of a tenant that are told when its jobs and batches end
    Webhooks(Scoped<Webhooks>),
    /// Where the limits of a tenant stand, and what refused it last
    Quota(Quota),
    /// Jobs, and the messages of those that failed for good
    Jobs(Scoped<jobs::Jobs>),
    /// The counters that admission is decided on
    Ledger(Scoped<LedgerCommand>),
    /// Files of tenants and models
    #[command(subcommand)]
    Config(Check),
}

/// Whose quota to show.
#[derive(Debug, clap::Args)]
pub struct Quota {
    tenant: String,
    #[command(flatten)]
    tables: TableNames,
}

#[derive(Debug, clap::Subcommand)]
pub enum LedgerCommand {
    /// Recompute the counters from the events of requests and report every one that differs
    Verify(verify::Args),
}

/// A command and the tables that it works on.
#[derive(Debug, clap::Args)]
pub struct Scoped<C: clap::Subcommand> {
    #[command(subcommand)]
    command: C,
    #[command(flatten)]
    tables: TableNames,
}

/// Where the entries are, if the environment does not say it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TableNames {
    /// The registry's table [default: $SPILLWAY_REGISTRY_TABLE, else spillway-registry]
    #[arg(long, global = true, value_name = "NAME")]
    registry_table: Option<String>,
    /// The ledger's table [default: $SPILLWAY_LEDGER_TABLE, else spillway-ledger]
    #[arg(long, global = true, value_name = "NAME")]
    ledger_table: Option<String>,
    /// The jobs' table [default: $SPILLWAY_JOBS_TABLE, else spillway-jobs]
    #[arg(long, global = true, value_name = "NAME")]
    jobs_table: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
pub enum Tenants {
    /// Create or update the tenants of a file; the others stay as they are
    Apply { file: PathBuf },
    /// List all tenants
    List,
    /// Print a tenant as a file that can be applied
    Show { name: String },
    /// Delete a tenant, its keys, its callers and its webhooks
    Delete { name: String },
}

#[derive(Debug, clap::Subcommand)]
pub enum Models {
    /// Create or update the models of a file; the others stay as they are
    Apply { file: PathBuf },
    /// List all models
    List,
    /// Print a model as a file that can be applied
    Show { name: String },
    /// Delete a model
    Delete { name: String },
}

#[derive(Debug, clap::Subcommand)]
pub enum Keys {
    /// Create a key of a tenant and print it: this is the only time that it is shown
    Create {
        tenant: String,
        /// When the key stops working, such as 90d, 12h or 30m; never when absent
        #[arg(long, value_name = "TIME", value_parser = keys::parse_duration)]
        expires_in: Option<Duration>,
    },
    /// Make a key stop working
    Revoke { key_id: String },
    /// List the keys of a tenant
    List { tenant: String },
}

#[derive(Debug, clap::Subcommand)]
pub enum Callers {
    /// Let an identity, which the front door verifies, stand for a tenant
    Allow {
        /// The ARN of an IAM role or user; all sessions of a role are one caller. Locally an access key id
        id: String,
        /// Whose requests it sends
        #[arg(long, value_name = "NAME")]
        tenant: String,
    },
    /// Let an identity stand for nobody
    Revoke { id: String },
    /// List all callers
    List,
}

#[derive(Debug, clap::Subcommand)]
pub enum Check {
    /// Say everything that is wrong with a file, and change nothing
    Check { file: PathBuf },
}

/// Carries out `command` on the AWS that the environment names, and prints what it did.
///
/// # Errors
/// The command was refused, or a table could not be reached.
pub async fn run(command: Admin) -> anyhow::Result<()> {
    let config = command.config()?;
    let table = match &command {
        Admin::Jobs(_) => format!("jobs table {}", config.jobs_table),
        _ => format!("registry table {}", config.registry_table),
    };
    let app = App::new(&config, Clients::new(&aws().await, None), Telemetry::off());
    let mut out = stdout().lock();
    let done = execute(command, &app, app.clock.now_ms(), &mut out).await;
    let changes = done.map_err(|error| match error.is::<StoreError>() {
        true => error.context(table),
        false => error,
    })?;
    out.flush()?;
    fence(&app.ledger, &changes).await.context("the change is made, but may take some seconds to hold everywhere")
}

/// Carries out `command` on the tables of `app`, tells on `out` what it did, and gives the entries that are different now.
///
/// # Errors
/// The command was refused, a table could not be reached, or what was verified is not as it should be.
pub async fn execute(command: Admin, app: &App, now_ms: u64, out: &mut impl Write) -> anyhow::Result<Vec<Change>> {
    let registry = &app.registry;
    match command {
        Admin::Tenants(Scoped { command, .. }) => match command {
            Tenants::Apply { file } => return apply::tenants(registry, &Entries::read(&file)?, out).await,
            Tenants::List => show::tenants(registry, out).await?,
            Tenants::Show { name } => show::tenant(registry, &name, out).await?,
            Tenants::Delete { name } => apply::delete_tenant(registry, &name, out).await?,
        },
        Admin::Models(Scoped { command, .. }) => match command {
            Models::Apply { file } => return apply::models(registry, &Entries::read(&file)?, out).await,
            Models::List => show::models(registry, out).await?,
            Models::Show { name } => show::model(registry, &name, out).await?,
            Models::Delete { name } => apply::delete_model(registry, &name, out).await?,
        },
        Admin::Keys(Scoped { command, .. }) => match command {
            Keys::Create { tenant, expires_in } => keys::create(registry, &tenant, expires_in, now_ms, out).await?,
            Keys::Revoke { key_id } => keys::revoke(registry, &key_id, out).await?,
            Keys::List { tenant } => keys::list(registry, &tenant, now_ms, out).await?,
        },
        Admin::Callers(Scoped { command, .. }) => match command {
            Callers::Allow { id, tenant } => callers::allow(registry, &id, &tenant, out).await?,
            Callers::Revoke { id } => callers::revoke(registry, &id, out).await?,
            Callers::List => callers::list(registry, out).await?,
        },
        Admin::Webhooks(Scoped { command, .. }) => webhooks::run(command, app, now_ms, out).await?,
        Admin::Quota(Quota { tenant, .. }) => quota::show(app, &tenant, now_ms, out).await?,
        Admin::Jobs(Scoped { command, .. }) => jobs::run(command, app, now_ms, out).await?,
        Admin::Ledger(Scoped { command: LedgerCommand::Verify(args), .. }) => {
            verify::run(app, &args, now_ms, out).await?
        }
        Admin::Config(Check::Check { file }) => {
            let entries = Entries::read(&file)?;
            let (tenants, models) = (entries.tenants.len(), entries.models.len());
            writeln!(out, "{} is valid (tenants: {tenants}, models: {models})", file.display())?;
        }
    }
    Ok(Vec::new())
}

/// Makes changed limits hold at once: an admission under older ones fails and reads the registry again.
async fn fence(ledger: &Ledger, changes: &[Change]) -> anyhow::Result<()> {
    for change in changes {
        match change {
            Change::Tenant { tenant, former_shards } => {
                ledger.fence(&broker::account_of(tenant), *former_shards).await?;
            }
            Change::Model { model, former_shards } => {
                for pool in model.ladder.iter().filter(|pool| !pool.limits.is_unlimited()) {
                    let former_shards = former_shards.get(&pool.name).copied().unwrap_or_default();
                    ledger.fence(&broker::account_of_pool(model, pool, 100), former_shards).await?;
                }
            }
        }
    }
    Ok(())
}

impl Admin {
    fn config(&self) -> anyhow::Result<Config> {
        let mut config = Config::from_env()?;
        let tables = match self {
            Self::Tenants(scoped) => scoped.tables.clone(),
            Self::Models(scoped) => scoped.tables.clone(),
            Self::Keys(scoped) => scoped.tables.clone(),
            Self::Callers(scoped) => scoped.tables.clone(),
            Self::Webhooks(scoped) => scoped.tables.clone(),
            Self::Quota(quota) => quota.tables.clone(),
            Self::Jobs(scoped) => scoped.tables.clone(),
            Self::Ledger(scoped) => scoped.tables.clone(),
            Self::Config(_) => TableNames::default(),
        };
        config.registry_table = tables.registry_table.unwrap_or(config.registry_table);
        config.ledger_table = tables.ledger_table.unwrap_or(config.ledger_table);
        config.jobs_table = tables.jobs_table.unwrap_or(config.jobs_table);
        Ok(config)
    }
}
