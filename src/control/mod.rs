//! L7: the control socket.
