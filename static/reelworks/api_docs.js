// The page of the API's document, with a form for each call. Beside the Bearer token that is typed into "Authorize", a
// login by the page's own form counts, too: its cookie goes along.
const place = document.getElementById('calls')
window.SwaggerUIBundle({
  url: place.dataset.document,
  domNode: place,
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: 'list',
  defaultModelsExpandDepth: 0,
  tryItOutEnabled: true,
  validatorUrl: null, // no address but our own is asked
})
