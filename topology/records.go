package topology

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Record is a DNS record of the file's own.
type Record struct {
	Name string `json:"name"`          // the whole of it, lower-case, without trailing dot
	TTL  uint32 `json:"ttl,omitempty"` // seconds, 0 is the server's default
	Type string `json:"type"`
	Data string `json:"data"` // as in a zone file (RFC 1035, section 5.1); its names end in a dot
}

func (r Record) String() string {
	if r.TTL == 0 {
		return fmt.Sprintf("%s. %s %s", r.Name, r.Type, r.Data)
	}
	return fmt.Sprintf("%s. %d %s %s", r.Name, r.TTL, r.Type, r.Data)
}

// maxTTL is the largest TTL there is (RFC 2181, section 8).
const maxTTL = 1<<31 - 1

// plainTypes are the types whose data is read; others come as RFC 3597 has it.
var plainTypes = [...]string{"A", "AAAA", "CNAME", "MX", "SRV", "TXT", "CAA", "PTR"}

// parseRecord reads one line of a zone file: a name, which is the domain's
// unless it ends in a dot, perhaps a TTL and IN, a type and its data.
func parseRecord(text, domain string) (r Record, problem *valueError) {
	words, problem := recordWords(text)
	if problem != nil {
		return r, problem
	}
	if len(words) < 3 {
		return r, &valueError{fmt.Sprintf("%s is not a record", quoted(text)), `write NAME TYPE DATA, as in a zone file: "@ MX 10 mail"`}
	}
	if r.Name, problem = recordName(words[0], domain, true); problem != nil {
		return r, problem
	}
	words = words[1:]
	for range 2 {
		if ttl, err := strconv.ParseUint(words[0].text, 10, 64); err == nil && !words[0].quoted && len(words) > 1 {
			if ttl > maxTTL {
				return r, &valueError{fmt.Sprintf("TTL %d is out of range", ttl), "seconds, at most 2147483647"}
			}
			r.TTL, words = uint32(ttl), words[1:]
		} else if strings.EqualFold(words[0].text, "IN") && len(words) > 1 {
			words = words[1:]
		}
	}
	r.Type = strings.ToUpper(words[0].text)
	r.Data, problem = recordData(r.Type, words[1:], domain)
	return r, problem
}

// word is one of a record: what it says, and whether quotes are around it.
type word struct {
	text   string
	quoted bool
}

// recordWords splits a record at blanks that are not in quotes. A backslash
// takes the next character, or a byte of three digits, as it is.
func recordWords(text string) ([]word, *valueError) {
	var words []word
	var b strings.Builder
	in, quote := false, false
	end := func(quoted bool) {
		words = append(words, word{b.String(), quoted})
		b.Reset()
		in = false
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && !quote && strings.HasPrefix(text[i:], `\#`):
			b.WriteString(`\#`) // RFC 3597
			i, in = i+1, true
		case c == '\\' && i+3 < len(text) && isDigits(text[i+1:i+4]):
			n, _ := strconv.Atoi(text[i+1 : i+4])
			if n > 255 {
				return nil, &valueError{fmt.Sprintf("%s is no byte", quoted(text[i:i+4])), `write \DDD from \000 to \255`}
			}
			b.WriteByte(byte(n))
			i, in = i+3, true
		case c == '\\' && i+1 < len(text):
			b.WriteByte(text[i+1])
			i, in = i+1, true
		case quote && c == '"':
			quote = false
			end(true)
		case quote:
			b.WriteByte(c)
		case c == '"' && in:
			return nil, &valueError{"a quote stands inside a word", "put a blank before it"}
		case c == '"':
			quote, in = true, true
		case c == ' ' || c == '\t':
			if in {
				end(false)
			}
		case c == '(' || c == ')' || c == ';' || c == '\n' || c == '\r' || c == '\\':
			return nil, &valueError{fmt.Sprintf("%q cannot stand here", c), "one record on one line, without comments; what is meant as text goes into quotes"}
		default:
			b.WriteByte(c)
			in = true
		}
	}
	if quote {
		return nil, &valueError{"a quote is not closed", "end the text with one too"}
	}
	if in {
		end(false)
	}
	return words, nil
}

func isDigits(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// recordName reads a name without its trailing dot; "" is the root, which only
// data may name.
func recordName(w word, domain string, owner bool) (string, *valueError) {
	name := strings.ToLower(w.text)
	switch {
	case name == "@":
		return domain, nil
	case name == "." && !owner:
		return "", nil
	case strings.HasSuffix(name, "."):
		name = strings.TrimSuffix(name, ".")
	case domain != "":
		name += "." + domain
	}
	// A slash is in names of classless parts of in-addr.arpa (RFC 2317).
	plain := strings.ReplaceAll(name, "/", "x")
	if owner {
		plain = strings.TrimPrefix(plain, "*.")
	}
	switch {
	case !validDNSName(plain) || len(name) > 253:
		return "", &valueError{fmt.Sprintf("%s is not a DNS name", quoted(w.text)), "parts of letters, digits, - and _, at most 63 long, with dots between them; * only as the first part of what the record is about"}
	case owner && !strings.Contains(name, "."):
		return "", &valueError{fmt.Sprintf("%s is a name of one part", quoted(w.text)), "leave out the dot at its end, and it is the domain's"}
	}
	return name, nil
}

// recordData checks a type's data and writes it with whole names.
func recordData(kind string, words []word, domain string) (string, *valueError) {
	form := map[string]string{
		"A": "ADDRESS", "AAAA": "ADDRESS", "CNAME": "NAME", "PTR": "NAME", "MX": "PREFERENCE NAME",
		"SRV": "PRIORITY WEIGHT PORT NAME", "TXT": `"TEXT"...`, "CAA": `FLAGS TAG "VALUE"`,
	}[kind]
	var numbers []string
	number := func(w word, bits int) bool {
		n, err := strconv.ParseUint(w.text, 10, bits)
		numbers = append(numbers, strconv.FormatUint(n, 10))
		return err == nil && !w.quoted
	}
	named := func(w word) (string, *valueError) {
		name, problem := recordName(w, domain, false)
		return strings.Join(append(numbers, name+"."), " "), problem
	}
	switch kind {
	case "A", "AAAA":
		if len(words) == 1 {
			addr, err := netip.ParseAddr(words[0].text)
			if err == nil && addr.Is4() == (kind == "A") && !addr.Is4In6() && addr.Zone() == "" {
				return addr.String(), nil
			}
		}
	case "CNAME", "PTR":
		if len(words) == 1 {
			return named(words[0])
		}
	case "MX":
		if len(words) == 2 && number(words[0], 16) {
			return named(words[1])
		}
	case "SRV":
		if len(words) == 4 && number(words[0], 16) && number(words[1], 16) && number(words[2], 16) {
			return named(words[3])
		}
	case "TXT":
		return recordTexts(words)
	case "CAA":
		if len(words) == 3 && number(words[0], 8) && validTag(words[1].text) && len(words[2].text) <= 255 {
			return numbers[0] + " " + words[1].text + " " + quotedBytes(words[2].text), nil
		}
	case "NS", "SOA", "DNAME":
		return "", &valueError{kind + " is not a type for records", "the backbone answers for the whole of a domain; for a domain that another server knows, write upstream: [{domain: NAME, servers: [ADDRESS]}] in the backbone"}
	default:
		return genericData(kind, words)
	}
	article := "a"
	if strings.ContainsAny(kind[:1], "AMS") {
		article = "an"
	}
	return "", &valueError{fmt.Sprintf("the data of %s %s record is wrong", article, kind), fmt.Sprintf("write it as %s %s", kind, form)}
}

// validTag tells whether s is a property of CAA (RFC 8659, section 4.1).
func validTag(s string) bool {
	return s != "" && len(s) <= 15 && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9')
	})
}

func recordTexts(words []word) (string, *valueError) {
	var out []string
	total := 0
	for _, w := range words {
		total += 1 + len(w.text)
		if len(w.text) > 255 {
			return "", &valueError{"a text of a TXT record has more than 255 bytes", `write it in several: TXT "..." "..."`}
		}
		out = append(out, quotedBytes(w.text))
	}
	const most = 16 << 10 // bytes; an answer has 64 KiB
	if total > most {
		return "", &valueError{"the texts of a TXT record have more than 16 KiB", "no answer has room for them"}
	}
	return strings.Join(out, " "), nil
}

// genericData is that of a type by its number: \# LENGTH HEX (RFC 3597).
func genericData(kind string, words []word) (string, *valueError) {
	number, err := strconv.ParseUint(strings.TrimPrefix(kind, "TYPE"), 10, 16)
	switch {
	case err != nil || !strings.HasPrefix(kind, "TYPE"):
		return "", &valueError{fmt.Sprintf("%s is not a type of record", quoted(kind)),
			"it takes " + orList(plainTypes[:]) + `; others by their number: TYPE65 \# 4 0a140005 (RFC 3597)`}
	case number == 0 || number == 41 || number >= 128 && number <= 255:
		return "", &valueError{kind + " is not a type of data", "it stands for something else than records (RFC 6895)"}
	case slices.Contains([]uint64{1, 2, 5, 6, 12, 15, 16, 28, 33, 39, 257}, number):
		return "", &valueError{kind + " has a name", "write the name and the data as in a zone file"}
	}
	hex := ""
	for _, w := range words[min(2, len(words)):] {
		hex += strings.ToLower(w.text)
	}
	if len(words) < 2 || words[0].text != `\#` || words[1].text != strconv.Itoa(len(hex)/2) || len(hex)%2 != 0 || len(hex) > 32<<10 ||
		strings.Trim(hex, "0123456789abcdef") != "" {
		return "", &valueError{fmt.Sprintf("the data of %s is wrong", kind), `write it as TYPE65 \# LENGTH HEX: the number of bytes, and each as two digits (RFC 3597)`}
	}
	return strings.TrimSpace(fmt.Sprintf(`\# %d %s`, len(hex)/2, hex)), nil
}

// quotedBytes writes a text in quotes as a zone file has it.
func quotedBytes(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(&b, `\%03d`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
