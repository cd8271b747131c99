//! RTSP, SDP, RTP and RTCP on paper: bytes in, bytes and events out. No socket, no clock, no thread.
