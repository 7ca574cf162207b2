package backbone

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// protocol is the version of the messages between keeper and backbone. A
// running backbone may be older than the keeper that speaks to it.
//
//   - 1: configurations and sockets.
//   - 2: the backbone holds files.
//   - 3: sockets to the outside for stations, questions for outside names,
//     questions followed, records, published ports.
const protocol = 3

// Types of messages.
const (
	msgConfig = "config" // keeper: work from this configuration
	msgReady  = "ready"  // backbone: listening as the configuration ID says
	msgFailed = "failed" // backbone: cannot, and goes on as before
	msgSocket = "socket" // backbone: open a socket; keeper: here it is
	msgEgress = "egress" // backbone: open a socket for a station; keeper: here it is
	msgSought = "sought" // backbone: these outside names were asked for
	msgHold   = "hold"   // keeper: hold this file under Name
	msgDrop   = "drop"   // keeper: close what is held under Name
	msgFollow = "follow" // keeper: tell of each question, or no longer
	msgAsked  = "asked"  // backbone: these were
	msgTake   = "take"   // keeper: what is held under Name? backbone: here it is
)

// message is one frame: a length of four bytes, then this as JSON.
type message struct {
	Type    string `json:"type"`
	Version int    `json:"version,omitempty"`
	ID      uint64 `json:"id"` // pairs a request with its answer
	// Config is read after Version, since another version's may look different.
	Config json.RawMessage `json:"config,omitempty"`
	Error  string          `json:"error,omitempty"`

	On    bool       `json:"on,omitempty"`
	Asked []Question `json:"asked,omitempty"`

	Name    string         `json:"name,omitempty"`
	Network string         `json:"network,omitempty"`
	Addr    netip.AddrPort `json:"addr,omitzero"`
	// From is the station's end, and Names are what DNS has called Addr, of
	// msgEgress.
	From   netip.AddrPort `json:"from,omitzero"`
	Names  []string       `json:"names,omitempty"`
	Sought []Asked        `json:"sought,omitempty"`
	// HasFile says that a descriptor travels with the frame.
	HasFile bool `json:"has_file,omitempty"`

	file *os.File
}

const (
	maxFrame = 64 << 20
	// maxFiles is how many descriptors may come with one message, of which
	// one is wanted.
	maxFiles = 4
	// sendTime is how long the other side may take for one message. One that
	// is stopped must not hold up who could go on without it.
	sendTime = 5 * time.Second
)

// pipe sends and receives messages. One goroutine may receive while others
// send.
type pipe struct {
	conn *net.UnixConn

	sendMu sync.Mutex

	oob []byte // of the one who receives
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
	return pipeOf(conn), nil
}

func pipeOf(conn *net.UnixConn) *pipe {
	return &pipe{conn: conn, oob: make([]byte, unix.CmsgSpace(4*maxFiles))}
}

func (p *pipe) close() error { return p.conn.Close() }

// send writes one message. It doesn't close m.file. After an error the
// connection is closed: part of a message may be on its way.
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
	if err := p.write(frame, m.file); err != nil {
		p.close()
		return err
	}
	return nil
}

func (p *pipe) write(frame []byte, file *os.File) error {
	if err := p.conn.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return err
	}
	if file != nil {
		raw, err := file.SyscallConn() // Fd would make it block, and whoever shares it
		if err != nil {
			return err
		}
		var n int
		var sent error
		if err := raw.Control(func(fd uintptr) { n, _, sent = p.conn.WriteMsgUnix(frame, unix.UnixRights(int(fd)), nil) }); err != nil {
			return err
		}
		if sent != nil {
			return sent
		}
		frame = frame[n:]
	}
	if len(frame) == 0 {
		return nil
	}
	_, err := p.conn.Write(frame)
	return err
}

// receive reads one message; the caller closes its file.
func (p *pipe) receive() (*message, error) {
	r := &rightsReader{pipe: p}
	defer r.drop()
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, fmt.Errorf("a message of %d bytes is too long", n)
	}
	// It grows with what arrives: a length alone costs no memory.
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(n)); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	m := &message{}
	if err := json.Unmarshal(body.Bytes(), m); err != nil {
		return nil, fmt.Errorf("cannot read a message: %w", err)
	}
	if m.HasFile {
		if len(r.files) == 0 {
			return nil, errors.New("a message came without its descriptor")
		}
		m.file, r.files = r.files[0], r.files[1:]
	}
	return m, nil
}

// rightsReader reads the bytes of one message and collects the descriptors
// that come with them. No read goes past the message, and the kernel hands a
// descriptor out with the bytes it was sent with, so that all are the
// message's own.
type rightsReader struct {
	pipe  *pipe
	files []*os.File
}

func (r *rightsReader) Read(b []byte) (int, error) {
	n, oobn, _, _, err := r.pipe.conn.ReadMsgUnix(b, r.pipe.oob)
	if oobn > 0 {
		r.files = append(r.files, parseRights(r.pipe.oob[:oobn])...)
	}
	if n < 0 {
		n = 0
	}
	if len(r.files) > maxFiles {
		return n, errors.New("a message came with too many descriptors")
	}
	if n == 0 && len(b) > 0 && (err == nil || errors.Is(err, io.EOF)) {
		// Bare, as io.ReadFull and io.CopyN compare it.
		return 0, io.EOF
	}
	return n, err
}

// drop closes what no message has taken.
func (r *rightsReader) drop() {
	for _, f := range r.files {
		f.Close()
	}
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
