package resolved

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

// As much of D-Bus as calls of methods need (dbus.freedesktop.org, D-Bus
// Specification 0.43).

const (
	busName = "org.freedesktop.DBus"
	busPath = "/org/freedesktop/DBus"

	methodCall, methodReturn, errorReply = 1, 2, 3

	fieldPath, fieldInterface, fieldMember, fieldError, fieldReply, fieldDestination, fieldSignature = 1, 2, 3, 4, 5, 6, 8

	noAutoStart = 2       // flag: what does not run is not started
	structs     = 8       // their alignment
	maxMessage  = 1 << 20 // bytes that are taken
)

// bus is a connection to a message bus.
type bus struct {
	conn   net.Conn
	reader *bufio.Reader
	serial uint32
}

// busError is the answer to a call that failed.
type busError struct{ name, text string }

func (e *busError) Error() string { return e.text + " (" + e.name + ")" }

// connect introduces this process to the bus.
func connect(conn net.Conn) (*bus, error) {
	b := &bus{conn: conn, reader: bufio.NewReader(conn)}
	user := hex.EncodeToString([]byte(strconv.Itoa(os.Geteuid())))
	if _, err := fmt.Fprintf(conn, "\x00AUTH EXTERNAL %s\r\n", user); err != nil {
		return nil, err
	}
	line, err := b.reader.ReadSlice('\n')
	switch {
	case err != nil:
		return nil, err
	case !strings.HasPrefix(string(line), "OK "):
		return nil, fmt.Errorf("it does not let us in: %q", line)
	}
	if _, err := io.WriteString(conn, "BEGIN\r\n"); err != nil {
		return nil, err
	}
	_, err = b.call(busName, busPath, busName, "Hello", "", func(*encoder) {})
	return b, err
}

// call calls a method and gives what is returned.
func (b *bus) call(destination, path, iface, member, signature string, body func(*encoder)) (*decoder, error) {
	b.serial++
	e := &encoder{}
	body(e)
	m := &encoder{b: []byte{'l', methodCall, noAutoStart, 1}}
	m.uint32(uint32(len(e.b)))
	m.uint32(b.serial)
	m.array(structs, func() {
		m.field(fieldPath, "o", path)
		m.field(fieldInterface, "s", iface)
		m.field(fieldMember, "s", member)
		m.field(fieldDestination, "s", destination)
		if signature != "" {
			m.align(structs)
			m.b = append(m.b, fieldSignature)
			m.signature("g")
			m.signature(signature)
		}
	})
	m.align(structs)
	if _, err := b.conn.Write(append(m.b, e.b...)); err != nil {
		return nil, err
	}
	for { // signals and the like come between
		kind, reply, failed, answer, err := b.receive()
		switch {
		case err != nil:
			return nil, err
		case reply != b.serial:
		case kind == methodReturn:
			return answer, nil
		case kind == errorReply:
			return nil, &busError{failed, answer.string()}
		}
	}
}

// receive reads a message: its kind, what it replies to, the name of the error
// that it is, and its body.
func (b *bus) receive() (kind byte, reply uint32, failed string, body *decoder, err error) {
	var fixed [16]byte
	if _, err := io.ReadFull(b.reader, fixed[:]); err != nil {
		return 0, 0, "", nil, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if fixed[0] == 'B' {
		order = binary.BigEndian
	}
	length, fields := order.Uint32(fixed[4:]), order.Uint32(fixed[12:])
	if length > maxMessage || fields > maxMessage {
		return 0, 0, "", nil, errors.New("a message is too long")
	}
	rest := make([]byte, (int(fields)+structs-1)/structs*structs+int(length))
	if _, err := io.ReadFull(b.reader, rest); err != nil {
		return 0, 0, "", nil, err
	}
	head := &decoder{b: rest[:fields], order: order}
	for len(head.b) > head.at && !head.bad {
		head.align(structs)
		code := head.byte()
		switch signature := head.signature(); signature {
		case "s", "o":
			if text := head.string(); code == fieldError {
				failed = text
			}
		case "g":
			head.signature()
		case "u":
			if v := head.uint32(); code == fieldReply {
				reply = v
			}
		default:
			head.bad = true
		}
	}
	if head.bad {
		return 0, 0, "", nil, errors.New("a message is not understood")
	}
	return fixed[1], reply, failed, &decoder{b: rest[len(rest)-int(length):], order: order}, nil
}
