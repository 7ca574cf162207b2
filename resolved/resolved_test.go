package resolved

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// startBus plays the bus and systemd-resolved: it notes what is called, and
// answers with answer's error, if it has one.
func startBus(t *testing.T, owner int, answer func(member string) string) (socket string, calls func() []string) {
	socket = filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	heard := make(chan []string, 1)
	go func() {
		var all []string
		defer func() { heard <- all }()
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		if line, _ := r.ReadString('\n'); line != fmt.Sprintf("\x00AUTH EXTERNAL %x\r\n", fmt.Sprint(os.Geteuid())) {
			all = append(all, line)
			return
		}
		io.WriteString(conn, "OK 1234\r\n")
		if line, _ := r.ReadString('\n'); line != "BEGIN\r\n" {
			all = append(all, line)
			return
		}
		signal := &encoder{b: []byte{'l', 4, 0, 1, 0, 0, 0, 0, 9, 0, 0, 0}}
		signal.array(structs, func() { signal.field(fieldMember, "s", "NameAcquired") })
		signal.align(structs)
		conn.Write(signal.b)
		for {
			serial, member, body, err := call(r)
			if err != nil {
				return
			}
			if member != "Hello" {
				all = append(all, strings.TrimSpace(member+" "+body))
			}
			back := &encoder{}
			failed := answer(member)
			kind, signature := byte(methodReturn), ""
			switch {
			case failed != "":
				kind, signature = errorReply, "s"
				back.string("in words")
			case member == "GetConnectionUnixProcessID":
				signature = "u"
				back.uint32(uint32(owner))
			}
			m := &encoder{b: []byte{'l', kind, 1, 1}}
			m.uint32(uint32(len(back.b)))
			m.uint32(7)
			m.array(structs, func() {
				m.align(structs)
				m.b = append(m.b, fieldReply)
				m.signature("u")
				m.uint32(serial)
				if failed != "" {
					m.field(fieldError, "s", failed)
				}
				m.align(structs)
				m.b = append(m.b, fieldSignature)
				m.signature("g")
				m.signature(signature)
			})
			m.align(structs)
			conn.Write(append(m.b, back.b...))
		}
	}()
	return socket, func() []string { l.Close(); return <-heard }
}

// call reads a call of a method, and its body as text.
func call(r io.Reader) (serial uint32, member, text string, err error) {
	var fixed [16]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return 0, "", "", err
	}
	order := binary.LittleEndian
	length, fields := order.Uint32(fixed[4:]), int(order.Uint32(fixed[12:]))
	rest := make([]byte, (fields+7)/8*8+int(length))
	if _, err := io.ReadFull(r, rest); err != nil {
		return 0, "", "", err
	}
	head, signature := &decoder{b: rest[:fields], order: order}, ""
	for head.at < len(head.b) {
		head.align(structs)
		switch code, kind := head.byte(), head.signature(); {
		case code == fieldSignature:
			signature = head.signature()
		case kind == "s" || kind == "o":
			if s := head.string(); code == fieldMember {
				member = s
			}
		}
	}
	body := &decoder{b: rest[len(rest)-int(length):], order: order}
	var words []string
	array := func(element func()) {
		size := int(body.uint32())
		body.align(structs)
		for end := body.at + size; body.at < end && !body.bad; {
			body.align(structs)
			element()
		}
	}
	switch signature {
	case "s":
		words = append(words, body.string())
	case "i":
		words = append(words, fmt.Sprint(body.uint32()))
	case "is":
		words = append(words, fmt.Sprint(body.uint32()), body.string())
	case "ib":
		words = append(words, fmt.Sprint(body.uint32()), fmt.Sprint(body.uint32()))
	case "ia(sb)":
		words = append(words, fmt.Sprint(body.uint32()))
		array(func() { words = append(words, fmt.Sprintf("%s:%d", body.string(), body.uint32())) })
	case "ia(iay)":
		words = append(words, fmt.Sprint(body.uint32()))
		array(func() {
			family := body.uint32()
			a, _ := netip.AddrFromSlice(body.take(int(body.uint32())))
			words = append(words, fmt.Sprintf("%d:%s", family, a))
		})
	}
	if head.bad || body.bad || body.at != len(body.b) || fixed[2] != noAutoStart {
		return 0, "", "", errors.New("a message is not understood")
	}
	return order.Uint32(fixed[8:]), member, strings.Join(words, " "), nil
}

func TestSet(t *testing.T) {
	link := Link{Index: 7, Servers: []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("fd20::1")}, Domains: []string{"shop.example", "b.example"}}
	socket, calls := startBus(t, os.Getpid(), func(string) string { return "" })
	if err := Set(socket, link); err != nil {
		t.Error(err)
	}
	want := []string{"GetConnectionUnixProcessID org.freedesktop.resolve1", "SetLinkDNSSEC 7 no", "SetLinkDNSOverTLS 7 no", "SetLinkLLMNR 7 no", "SetLinkMulticastDNS 7 no",
		"SetLinkDefaultRoute 7 0", "SetLinkDomains 7 shop.example:1 b.example:1", "SetLinkDNS 7 2:203.0.113.1 10:fd20::1"}
	if got := calls(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	socket, calls = startBus(t, os.Getpid(), func(string) string { return "" })
	if err := Set(socket, Link{Index: 7}); err != nil {
		t.Error(err)
	}
	if got := calls(); len(got) != 2 || got[1] != "RevertLink 7" {
		t.Errorf("without servers: %q", got)
	}
}

// TestAbsent: no bus, nobody who resolves, and one that does so elsewhere are
// no failure; what systemd-resolved refuses is.
func TestAbsent(t *testing.T) {
	link := Link{Index: 7, Servers: []netip.Addr{netip.MustParseAddr("203.0.113.1")}}
	if err := Set(filepath.Join(t.TempDir(), "none"), link); !errors.Is(err, ErrAbsent) {
		t.Errorf("without a bus: %v", err)
	}
	socket, _ := startBus(t, 0, func(member string) string {
		if member != "GetConnectionUnixProcessID" {
			return ""
		}
		return "org.freedesktop.DBus.Error.NameHasNoOwner"
	})
	if err := Set(socket, link); !errors.Is(err, ErrAbsent) {
		t.Errorf("without systemd-resolved: %v", err)
	}
	socket, _ = startBus(t, 1<<30, func(string) string { return "" })
	if err := Set(socket, link); !errors.Is(err, ErrAbsent) {
		t.Errorf("of another machine: %v", err)
	}
	socket, calls := startBus(t, os.Getpid(), func(member string) string {
		if member != "SetLinkDomains" {
			return ""
		}
		return "org.freedesktop.resolve1.LinkBusy"
	})
	if err := Set(socket, link); err == nil || err.Error() != "cannot tell systemd-resolved: SetLinkDomains: in words (org.freedesktop.resolve1.LinkBusy)" {
		t.Errorf("refused: %v", err)
	}
	if got := calls(); slices.ContainsFunc(got, func(c string) bool { return strings.HasPrefix(c, "SetLinkDNS ") }) {
		t.Errorf("a server without domains is one for all names: %q", got)
	}
}

func FuzzReceive(f *testing.F) {
	m := &encoder{b: []byte{'l', methodReturn, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0}}
	m.array(structs, func() { m.field(fieldError, "s", "a.b") })
	m.align(structs)
	f.Add(m.b)
	f.Add([]byte("B\x03\x00\x01\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x08\x05\x01u\x00\x00\x00\x00\x01\x00\x00\x00\x00"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		b := &bus{reader: bufio.NewReader(bytes.NewReader(data))}
		if _, _, _, body, err := b.receive(); err == nil {
			body.string()
		}
	})
}
