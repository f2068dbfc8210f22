// Package streamstest makes simplestreams upstreams for tests and for the demo.
//
// A [Tree] is a whole upstream as plain data: lists, products, versions, items
// and the files they name. [MAAS] builds one in the shape of images.maas.io,
// [Plain] one without MAAS' rules, [Random] one from a seed; a literal does for
// the rest. The content of a file follows from its path and size alone, is
// incompressible and is made as it is read, so a tree of many gigabytes takes
// no memory and is the same in every run.
//
//	tree := streamstest.MAAS(streamstest.Shape{})
//	up := streamstest.NewUpstream(tree)
//	server := httptest.NewServer(up)
//	// … mirror server.URL with the keyring tree.Keyring(), then compare:
//	want := tree.File("noble/amd64/20250718/squashfs").Bytes()
//
// A tree may be changed at will; upstream shows the changes when it is told to
// publish, all at once, whatever requests are under way:
//
//	tree.AddDay()                                      // new versions of all images
//	tree.Trim(2)                                       // upstream keeps two
//	tree.File("centos/8/amd64/20250719_01/root-tgz").Broken = streamstest.Flipped
//	up.Publish(tree)
//
// Upstream counts requests and bytes, and goes wrong on demand:
//
//	up.SetFault(func(r *http.Request) streamstest.Fault {
//		if strings.HasSuffix(r.URL.Path, "/squashfs") {
//			return streamstest.Fault{CutAfter: 1000}
//		}
//		return streamstest.Fault{}
//	})
//	…
//	if n := up.Hits("streams/v1/index.sjson"); n != 1 {
//
// The documents are laid out and signed as upstream's own tools do it.
package streamstest
