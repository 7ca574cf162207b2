package backbone

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// protocol is the version of the messages between keeper and backbone. A
// running backbone may be older than the keeper that speaks to it.
const protocol = 1

// Types of messages.
const (
	msgConfig = "config" // keeper: work from this configuration
	msgReady  = "ready"  // backbone: listening as the configuration ID says
	msgFailed = "failed" // backbone: cannot, and goes on as before
	msgSocket = "socket" // backbone: open a socket; keeper: here it is
)

// message is one frame: a length of four bytes, then this as JSON.
type message struct {
	Type    string  `json:"type"`
	Version int     `json:"version,omitempty"`
	ID      uint64  `json:"id"` // pairs a request with its answer
	Config  *Config `json:"config,omitempty"`
	Error   string  `json:"error,omitempty"`

	Network string         `json:"network,omitempty"`
	Addr    netip.AddrPort `json:"addr,omitzero"`
	// HasFile says that a descriptor travels with the frame.
	HasFile bool `json:"has_file,omitempty"`

	file *os.File
}

const maxFrame = 64 << 20

// pipe sends and receives messages. One goroutine may receive while others
// send.
type pipe struct {
	conn *net.UnixConn

	sendMu sync.Mutex

	oob   []byte
	files []*os.File // received, and not yet taken by a frame
}

// newPipe takes file over, also when it fails.
func newPipe(file *os.File) (*pipe, error) {
	c, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return nil, fmt.Errorf("cannot use the keeper's connection: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("cannot use the keeper's connection: not a unix socket")
	}
	return &pipe{conn: conn, oob: make([]byte, unix.CmsgSpace(4*4))}, nil
}

func (p *pipe) close() error { return p.conn.Close() }

// send writes one message. It doesn't close m.file.
func (p *pipe) send(m *message) error {
	m.HasFile = m.file != nil
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(body) > maxFrame {
		return fmt.Errorf("a message of %d bytes is too long", len(body))
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	frame = append(frame, body...)
	p.sendMu.Lock()
	defer p.sendMu.Unlock()
	if m.file != nil {
		n, _, err := p.conn.WriteMsgUnix(frame, unix.UnixRights(int(m.file.Fd())), nil)
		if err != nil {
			return err
		}
		frame = frame[n:]
	}
	if len(frame) == 0 {
		return nil
	}
	_, err = p.conn.Write(frame)
	return err
}

// receive reads one message; the caller closes its file.
func (p *pipe) receive() (*message, error) {
	var head [4]byte
	if _, err := io.ReadFull(rightsReader{p}, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, fmt.Errorf("a message of %d bytes is too long", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(rightsReader{p}, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	m := &message{}
	if err := json.Unmarshal(body, m); err != nil {
		return nil, err
	}
	if m.HasFile {
		if len(p.files) == 0 {
			return nil, errors.New("a message came without its descriptor")
		}
		// The kernel keeps descriptors in the order of the bytes.
		m.file, p.files = p.files[0], p.files[1:]
	}
	return m, nil
}

// drop closes what was received and never taken.
func (p *pipe) drop() {
	for _, f := range p.files {
		f.Close()
	}
	p.files = nil
}

// rightsReader reads bytes and collects the descriptors that come with them.
type rightsReader struct{ p *pipe }

func (r rightsReader) Read(b []byte) (int, error) {
	n, oobn, _, _, err := r.p.conn.ReadMsgUnix(b, r.p.oob)
	if oobn > 0 {
		r.p.files = append(r.p.files, parseRights(r.p.oob[:oobn])...)
	}
	if n < 0 {
		n = 0
	}
	if n == 0 && err == nil && len(b) > 0 {
		return 0, io.EOF
	}
	return n, err
}

func parseRights(oob []byte) []*os.File {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	var files []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "upstream"))
		}
	}
	return files
}
