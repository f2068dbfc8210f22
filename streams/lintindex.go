package streams

import "fmt"

// lintIndex applies the rules of the index and its entries.
func lintIndex(x *Index, lists []*Products, p Profile) (found []Finding) {
	if x == nil {
		return nil
	}
	byID := map[string]*Products{}
	for _, l := range lists {
		byID[l.ContentID] = l
	}
	report := func(of Profile, contentID string, fatal bool, problem string) {
		if problem != "" && p.includes(of) {
			found = append(found, Finding{Profile: of, ContentID: contentID, Problem: problem, Fatal: fatal})
		}
	}
	report(V38, "", true, modelDate(x.Updated))
	if len(x.Entries) == 0 {
		report(V38, "", true, "it names no lists, MAAS 3.8 wants at least one")
	}
	for _, e := range x.Entries {
		report(V38, e.ContentID, true, modelEntry(e))
		report(Plain, e.ContentID, false, entryFormat(e))
		l := byID[e.ContentID]
		if e.Format == productsFormat && l == nil {
			report(Plain, e.ContentID, true, fmt.Sprintf("the index names the list %s, which is not there", e.Path))
		}
		if l != nil {
			report(Plain, e.ContentID, false, entryProducts(e, l))
		}
	}
	return found
}

// modelEntry: MAAS 3.8: models.py IndexContent; client.py get_all_products
// reads what every entry names, whatever its format. The name is given to the
// model beside the members, which must not have it, too.
func modelEntry(e *Entry) string {
	switch {
	case e.Fields.has("name"):
		return "it has the member name, which MAAS 3.8 sets itself"
	case e.Path == "":
		return "path is missing, MAAS 3.8 needs it"
	case e.Format != productsFormat:
		return fmt.Sprintf("format is %q, MAAS 3.8 reads every list as %s", e.Format, productsFormat)
	case !e.Fields.has("products") || e.Products == nil:
		return "products is missing, MAAS 3.8 needs it"
	case e.DataType != "" && modelDataType(e.DataType) != "":
		return modelDataType(e.DataType)
	}
	return modelDate(e.Updated)
}

// entryFormat: python simplestreams: mirrors sync_index passes over an entry
// without a known format, and says nothing.
func entryFormat(e *Entry) string {
	if e.Format != productsFormat && e.Format != indexFormat {
		return fmt.Sprintf("format is %q, which python simplestreams does not follow", e.Format)
	}
	return ""
}

// entryProducts compares what an entry says of its list with the list.
func entryProducts(e *Entry, l *Products) string {
	unnamed := map[string]bool{} // by product of the list
	for _, p := range l.Products {
		unnamed[p.Name] = true
	}
	for _, name := range e.Products {
		if _, there := unnamed[name]; !there {
			return fmt.Sprintf("the index names the product %s, which the list lacks", name)
		}
		unnamed[name] = false
	}
	for _, p := range l.Products {
		if unnamed[p.Name] && e.Fields.has("products") {
			return fmt.Sprintf("the list has the product %s, which the index does not name", p.Name)
		}
	}
	return ""
}
