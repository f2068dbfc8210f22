package streams

import (
	"bytes"
	"encoding/json"
	"slices"
)

// A printer writes documents in the layout of python's
// json.dumps(indent=1, separators=(',', ': ')), which upstream uses: one space
// a level, ASCII only in what it quotes itself. Scalars are written as they
// were read, so that a document in this layout comes out byte for byte.
type printer struct {
	buf   []byte
	level int
}

// object writes fields, with the n children in the place of container.
func (w *printer) object(fields Fields, container string, n int, child func(i int)) {
	if n > 0 && !fields.has(container) {
		fields.Set(container, nil)
	}
	if len(fields) == 0 {
		w.buf = append(w.buf, "{}"...)
		return
	}
	w.begin()
	for i, f := range fields {
		w.key(i, f.Key)
		if container == "" || f.Key != container {
			w.value(f.Value)
			continue
		}
		if n == 0 {
			w.buf = append(w.buf, "{}"...)
			continue
		}
		w.begin()
		for c := range n {
			child(c)
		}
		w.end()
	}
	w.end()
}

func (w *printer) begin() {
	w.buf = append(w.buf, '{')
	w.level++
}

func (w *printer) end() {
	w.level--
	w.line()
	w.buf = append(w.buf, '}')
}

func (w *printer) line() {
	w.buf = append(w.buf, '\n')
	for range w.level {
		w.buf = append(w.buf, ' ')
	}
}

// key begins the i-th member of an object.
func (w *printer) key(i int, key string) {
	if i > 0 {
		w.buf = append(w.buf, ',')
	}
	w.line()
	w.buf = append(appendQuoted(w.buf, key), ": "...)
}

func (w *printer) value(raw json.RawMessage) {
	if len(raw) == 0 || raw[0] != '{' && raw[0] != '[' {
		w.buf = append(w.buf, raw...)
		return
	}
	out := bytes.NewBuffer(w.buf)
	prefix := bytes.Repeat([]byte(" "), w.level)
	if err := json.Indent(out, raw, string(prefix), " "); err != nil {
		panic("internal error: invalid value in Fields: " + err.Error())
	}
	w.buf = out.Bytes()
}

// Render prints the index as python's json.dumps(indent=1) does, members in
// the order of Fields, with the white space that followed the text it was
// parsed from.
func (x *Index) Render() []byte {
	var w printer
	w.object(x.Fields, "index", len(x.Entries), func(i int) {
		e := x.Entries[i]
		w.key(i, e.ContentID)
		w.object(e.Fields, "", 0, nil)
	})
	return append(w.buf, x.tail...)
}

// Render prints the list in the layout of [Index.Render].
func (l *Products) Render() []byte {
	w := printer{buf: make([]byte, 0, l.size)}
	w.object(l.Fields, "products", len(l.Products), func(i int) {
		p := l.Products[i]
		w.key(i, p.Name)
		w.object(p.Fields, "versions", len(p.Versions), func(i int) {
			v := p.Versions[i]
			w.key(i, v.Name)
			w.object(v.Fields, "items", len(v.Items), func(i int) {
				it := v.Items[i]
				w.key(i, it.Name)
				w.object(it.Fields, "", 0, nil)
			})
		})
	})
	return slices.Clip(append(w.buf, l.tail...))
}
