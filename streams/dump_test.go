package streams
import ("testing";"os";"fmt";"encoding/json")
func TestDump(t *testing.T) {
	dir := os.Getenv("DUMP"); if dir=="" {t.Skip()}
	f,_ := os.Create(dir+"/cases.jsonl"); defer f.Close()
	enc := json.NewEncoder(f)
	bad:=0
	for seed := range uint64(4000) {
		c := newChaos(seed); doc := c.list("com.ubuntu.maas:x")
		l, err := ParseProducts(doc)
		if err!=nil {bad++; if bad<5 {fmt.Println(err)}; continue}
		tags := map[string]map[string]string{}
		for _, p := range l.Products { for _, v := range p.Versions { for _, it := range v.Items {
			m := map[string]string{}
			for _, k := range []string{"arch","os","label","release_title","support_eol","version","version_name","product_name","item_name","content_id","size","path","ftype","kpackage","sha256","unknown","updated","squashfs"} {
				if s, ok := l.Tag(k,p,v,it); ok { m[k]=s } }
			tags[Pedigree{p.Name,v.Name,it.Name}.String()] = m
		}}}
		var probs []string
		for _, f := range Lint(nil, []*Products{l}, V38) { probs = append(probs, fmt.Sprint(f.Profile," ",f)) }
		cf, _ := l.Conform(V38); var conf string
		if cf != nil { conf = string(cf.Render()) }
		ca, _ := l.Conform(All); var confa string
		if ca != nil { confa = string(ca.Render()) }
		enc.Encode(map[string]any{"seed":seed,"doc":string(doc),"findings":probs,"tags":tags,"conform":conf,"all":confa})
	}
	fmt.Println("unparsable",bad)
}
