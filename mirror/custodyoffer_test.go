package mirror

import (
	"testing"

	"oxbow/mirror/upstream"
)

// An offer is a link with our relation and our type; one that leads elsewhere is not followed.
func TestOffered(t *testing.T) {
	ours := map[string]string{"rel": "next " + custodyRelation, "type": CustodyType}
	for _, test := range []struct {
		links []upstream.Link
		want  offer
	}{
		{nil, offer{}},
		{[]upstream.Link{{URL: "a", Params: map[string]string{"rel": custodyRelation}}, {URL: "b", Params: map[string]string{"rel": "next", "type": CustodyType}}}, offer{}},
		{[]upstream.Link{{URL: "a", Params: map[string]string{"rel": custodyRelation, "type": "text/turtle"}}, {URL: "b", Params: ours}}, offer{url: "b"}},
		{[]upstream.Link{{URL: "a", Params: ours, Elsewhere: true}}, offer{"a", errElsewhere}},
	} {
		got := offered(test.links)
		if got == nil {
			got = &offer{}
		}
		if *got != test.want {
			t.Errorf("%+v: %+v, want %+v", test.links, got, test.want)
		}
	}
}
