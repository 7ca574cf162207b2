package resolved

import "encoding/binary"

// encoder writes values, each aligned to its size, in little-endian order.
type encoder struct{ b []byte }

func (e *encoder) align(to int) {
	for len(e.b)%to != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) uint32(v uint32) {
	e.align(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, v)
}

func (e *encoder) string(s string) {
	e.uint32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) signature(s string) {
	e.b = append(append(append(e.b, byte(len(s))), s...), 0)
}

// array writes what elements writes, of an alignment, with its length before
// it, which does not count the padding up to the first.
func (e *encoder) array(alignment int, elements func()) {
	e.uint32(0)
	at := len(e.b)
	e.align(alignment)
	first := len(e.b)
	elements()
	binary.LittleEndian.PutUint32(e.b[at-4:], uint32(len(e.b)-first))
}

// field writes a field of a message's header.
func (e *encoder) field(code byte, signature, value string) {
	e.align(structs)
	e.b = append(e.b, code)
	e.signature(signature)
	e.string(value)
}

// decoder reads values. Where there is none to read it is bad, and they are
// zero.
type decoder struct {
	b     []byte
	at    int
	order binary.ByteOrder
	bad   bool
}

func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b)-d.at || d.bad {
		d.bad = true
		return nil
	}
	d.at += n
	return d.b[d.at-n : d.at]
}

func (d *decoder) align(to int) { d.take((to - d.at%to) % to) }

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	d.align(4)
	if b := d.take(4); b != nil {
		return d.order.Uint32(b)
	}
	return 0
}

func (d *decoder) string() string { return d.text(int(d.uint32())) }

func (d *decoder) signature() string { return d.text(int(d.byte())) }

func (d *decoder) text(n int) string {
	text := string(d.take(n))
	d.take(1) // the closing zero
	return text
}
