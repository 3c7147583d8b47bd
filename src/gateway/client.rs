//! Connections to one backend. They are ours rather than a ready-made client's, because a
//! proxy must know what such a client hides: whether a connection was made, and whether a
//! byte of the request left on it. Nothing here tries anything twice that a backend may have
//! seen.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use hyper::Response;
use hyper::body::Frame;
use hyper::http::request;
use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::accept::workers;

use super::exchange::{Exchange, Lost};
use super::http1::Decoder;
use super::request_body::{Fault, RequestBody, Stalled};

/// Whoever waits for an answer's next part hears its alarm. One that is overdue for so long has
/// nobody who waits.
const OVERDUE: Duration = Duration::from_secs(1);

/// Limits on connections to a backend.
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Connections at once.
    pub connections: usize,
    /// How long one is kept without a request.
    pub idle: Duration,
    /// How long one may take to be made.
    pub connect_timeout: Duration,
    /// How long an answer's head may take, from the request's last byte on.
    pub response_timeout: Duration,
    /// How long a body may stand still.
    pub body_timeout: Duration,
}

/// The connections to one backend.
#[derive(Debug)]
pub struct Pool {
    address: SocketAddr,
    options: ClientOptions,
    /// Those without a request, by the thread that they belong to; the one used last at the end.
    idle: Box<[Mutex<Idle>]>,
    open: AtomicUsize,
    /// Room for bodies on their way: clients that are slow with theirs leave half of the
    /// connections to everybody else.
    uploads: Semaphore,
    /// Those with an answer on its way that is longer than a part.
    lent: Mutex<Vec<Weak<Shared>>>,
}

type Idle = VecDeque<Box<Connection>>;

/// None once it was given or taken back.
type Shared = Mutex<Option<Box<Connection>>>;

/// A request that got no answer, and how much of it may be tried again.
#[derive(Debug)]
pub struct Unanswered {
    /// Why.
    pub cause: Cause,
    /// Whether a byte of it may have reached the backend.
    pub sent: bool,
    /// Its body, as far as it is left.
    pub body: RequestBody,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// As many connections are open as may be.
    #[error("too many connections")]
    Full,
    /// This machine has no more files, ports or memory for one.
    #[error("cannot connect from here: {0}")]
    Exhausted(#[source] io::Error),
    /// No connection could be made.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// No connection was made in time.
    #[error("cannot connect in time")]
    ConnectTimeout,
    /// The connection broke, or what came was no answer.
    #[error("{0}")]
    Broken(#[source] io::Error),
    /// What came cannot be passed on.
    #[error("{0}")]
    Unfit(&'static str),
    /// No answer came in time.
    #[error("no answer in time")]
    Timeout,
    /// The client sent its body badly.
    #[error("{0}")]
    Client(#[source] Fault),
    /// The client sent no more of its body.
    #[error("the client stopped sending its body")]
    ClientTimeout,
}

impl Cause {
    /// Whether no backend had a part in it.
    pub fn is_here(&self) -> bool {
        matches!(self, Cause::Full | Cause::Exhausted(_))
    }

    fn connecting(error: io::Error) -> Cause {
        match Errno::from_io_error(&error) {
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::ADDRNOTAVAIL) => {
                Cause::Exhausted(error)
            }
            _ => Cause::Connect(error),
        }
    }
}

impl From<Lost> for Cause {
    fn from(lost: Lost) -> Cause {
        match lost {
            Lost::Client(fault) => Cause::Client(fault),
            Lost::Broken(error) => Cause::Broken(error),
        }
    }
}

impl Pool {
    /// No connections yet, to `address`.
    pub fn new(address: SocketAddr, options: ClientOptions) -> Pool {
        let idle = (0..workers::count()).map(|_| Mutex::default()).collect();
        let uploads = Semaphore::new(options.connections.div_ceil(2));
        Pool { address, options, idle, open: AtomicUsize::new(0), uploads, lent: Mutex::default() }
    }

    /// Sends a request of `head`, which must be well-formed HTTP/1.1, and `body`, and waits for
    /// the head of its answer. The answer's body comes on the connection.
    pub async fn send(
        self: &Arc<Pool>,
        head: &request::Parts,
        mut body: RequestBody,
    ) -> Result<(Response<Decoder>, Box<Connection>), Unanswered> {
        let room = match body {
            RequestBody::Streamed(_) => self.uploads.try_acquire().map(Some),
            RequestBody::Empty | RequestBody::Whole(_) => Ok(None),
        };
        let Ok(_room) = room else {
            return Err(Unanswered { cause: Cause::Full, sent: false, body });
        };
        while let Some(mut connection) = self.take() {
            match connection.send(head, body).await {
                Ok(response) => return Ok((response, connection)),
                // The backend had closed it: nothing has happened yet.
                Err(Unanswered { sent: false, cause: Cause::Broken(_), body: unused }) => {
                    body = unused;
                }
                Err(unanswered) => return Err(unanswered),
            }
        }
        match self.connect().await {
            Ok(mut connection) => {
                let response = connection.send(head, body).await?;
                Ok((response, connection))
            }
            Err(cause) => Err(Unanswered { cause, sent: false, body }),
        }
    }

    /// Closes the connections that have been idle for too long, and those whose answers nobody
    /// has taken for too long. Returns whether there are others.
    pub fn sweep(&self) -> bool {
        let now = Instant::now();
        for idle in &self.idle {
            let mut idle = lock(idle);
            while idle.front().is_some_and(|it| now >= it.idle_since + self.options.idle) {
                idle.pop_front();
            }
        }
        lock(&self.lent).retain(|lent| {
            let Some(lent) = lent.upgrade() else { return false };
            lock(&lent).take_if(|connection| now >= connection.alarm.deadline + OVERDUE).is_none()
        });
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Closes all connections without a request.
    pub fn clear(&self) {
        for idle in &self.idle {
            let idle = std::mem::take(&mut *lock(idle));
            drop(idle);
        }
    }

    fn take(&self) -> Option<Box<Connection>> {
        let connection = lock(&self.idle[workers::current()]).pop_back()?;
        // All others have waited for even longer.
        (connection.idle_since.elapsed() < self.options.idle).then_some(connection)
    }

    async fn connect(self: &Arc<Pool>) -> Result<Box<Connection>, Cause> {
        let place = Place::take(self).or_else(|| {
            // Another thread may have some that it has no use for.
            self.close_one();
            Place::take(self)
        });
        let place = place.ok_or(Cause::Full)?;
        let connecting = timeout(self.options.connect_timeout, TcpStream::connect(self.address));
        let stream =
            connecting.await.map_err(|_| Cause::ConnectTimeout)?.map_err(Cause::connecting)?;
        stream.set_nodelay(true).map_err(Cause::Connect)?;
        let deadline = Instant::now() + self.options.body_timeout;
        Ok(Box::new(Connection {
            exchange: Exchange::new(stream),
            alarm: Alarm { sleep: Box::pin(sleep_until(deadline)), deadline },
            idle_since: deadline,
            worker: workers::current(),
            place,
        }))
    }

    /// Closes the connection that some thread has not used for longest.
    fn close_one(&self) {
        let connection = self.idle.iter().find_map(|idle| lock(idle).pop_front());
        drop(connection);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

/// One of the connections that a backend may have.
pub struct Place(Arc<Pool>);

impl Place {
    fn take(pool: &Arc<Pool>) -> Option<Place> {
        if pool.open.fetch_add(1, Ordering::Relaxed) < pool.options.connections {
            return Some(Place(pool.clone()));
        }
        pool.open.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection to a backend, with limits on how long anything may take.
pub struct Connection {
    exchange: Exchange,
    alarm: Alarm,
    idle_since: Instant,
    /// The thread whose runtime has its socket.
    worker: usize,
    place: Place,
}

impl Connection {
    async fn send(
        &mut self,
        head: &request::Parts,
        body: RequestBody,
    ) -> Result<Response<Decoder>, Unanswered> {
        let Connection { exchange, alarm, place, .. } = self;
        let options = place.0.options;
        let begun = exchange.begin(head, body);
        let patience = match exchange.body() {
            RequestBody::Streamed(_) => options.response_timeout.min(options.body_timeout),
            RequestBody::Empty | RequestBody::Whole(_) => options.response_timeout,
        };
        alarm.set(Instant::now() + patience);
        let answered = std::future::poll_fn(|cx| {
            begun.map_err(Cause::Client)?;
            if let Poll::Ready(answered) = exchange.poll_answer(cx) {
                return Poll::Ready(answered.map_err(Cause::from));
            }
            let late = || exchange.body().deadline(options.body_timeout, options.response_timeout);
            // A body may end at any moment, and then there is less time.
            let soon = || Instant::now() + options.response_timeout;
            ready!(alarm.poll(cx, || late().map(|(deadline, _)| deadline.min(soon()))));
            Poll::Ready(Err(match late() {
                Some((_, Stalled::Client)) => Cause::ClientTimeout,
                Some((_, Stalled::Backend)) | None => Cause::Timeout,
            }))
        });
        let answered = answered.await;
        answered.map_err(|cause| Unanswered {
            cause,
            sent: exchange.has_sent(),
            body: exchange.take_body(),
        })
    }

    /// The next part of an answer's body, which ends where `decoder` says.
    pub fn poll_frame(
        &mut self,
        decoder: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        self.exchange.poll_frame(decoder, cx)
    }

    /// Ready when the answer's body has stood still for too long.
    pub fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll(cx, || None)
    }

    /// A part of the answer's body, or its head, has come.
    pub fn progressed(&mut self) {
        self.alarm.set(Instant::now() + self.place.0.options.body_timeout);
    }

    /// Whether the client has stopped its request's body, or spoilt it: what comes of that is
    /// not the backend's fault.
    pub fn is_let_down(&self) -> bool {
        self.exchange.body().is_let_down()
    }

    /// For an answer that may take long: its pool closes the connection if nobody has asked for
    /// the next part for too long, which nobody here would notice.
    pub fn lend(self: Box<Connection>) -> Lent {
        let pool = self.place.0.clone();
        let lent = Arc::new(Mutex::new(Some(self)));
        lock(&pool.lent).push(Arc::downgrade(&lent));
        Lent(lent)
    }

    /// Gives the connection back to its pool, if it can take another request.
    pub fn release(mut self: Box<Connection>) {
        if !self.exchange.finish() {
            return;
        }
        self.idle_since = Instant::now();
        let (pool, worker) = (self.place.0.clone(), self.worker);
        lock(&pool.idle[worker]).push_back(self);
    }

    /// The body of its request, as far as it is left.
    pub fn into_body(mut self: Box<Connection>) -> RequestBody {
        self.exchange.take_body()
    }

    /// The socket, what was read from it beyond the answer that switched protocols, and its
    /// place among the backend's connections.
    pub fn into_tunnel(self: Box<Connection>) -> (TcpStream, Bytes, Place) {
        let (stream, first) = self.exchange.into_parts();
        (stream, first, self.place)
    }
}

/// A connection that its pool may take back.
#[derive(Debug)]
pub struct Lent(Arc<Shared>);

impl Lent {
    /// Does `work` with it; nothing if it was taken back.
    pub fn with<T>(&self, work: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        lock(&self.0).as_deref_mut().map(work)
    }

    /// Gives it back.
    pub fn release(self) {
        let connection = lock(&self.0).take();
        connection.into_iter().for_each(Connection::release);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.0.address).finish()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("idle_since", &self.idle_since).finish_non_exhaustive()
    }
}

/// A timer that is set again with every request, and hardly ever rings: setting it later
/// touches nothing, it is when it rings that it looks whether it should have.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    deadline: Instant,
}

impl Alarm {
    fn set(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if deadline < self.sleep.deadline() {
            self.sleep.as_mut().reset(deadline);
        }
    }

    /// Ready at the deadline, unless `later` knows of another one by then.
    fn poll(&mut self, cx: &mut Context<'_>, later: impl Fn() -> Option<Instant>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.deadline {
                match later() {
                    Some(deadline) if now < deadline => self.deadline = deadline,
                    _ => return Poll::Ready(()),
                }
            }
            self.sleep.as_mut().reset(self.deadline);
        }
    }
}
