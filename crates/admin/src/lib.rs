//! What the operator asks and orders, answered in process or over the control socket.
