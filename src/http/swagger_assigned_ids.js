// A plugin of Swagger UI. It copies ids that the service assigned, such as the `transfer_id` of a receipt or the `hold_id` of its
// hold, into path parameters of the same name that have no example. The operations that need such an id can then be tried without
// copying it by hand.
function AssignedIds() {
  const fill = (system, receipt) => {
    if (receipt === null || typeof receipt !== 'object') return;
    system.specSelectors.specJson().get('paths').forEach((item, path) => item.forEach((operation, method) => {
      operation.get('parameters')?.forEach((parameter) => {
        const name = parameter.get('name');
        const id = receipt[name] ?? receipt.hold?.[name];
        if (parameter.get('in') !== 'path' || parameter.has('example') || typeof id !== 'string') return;
        system.specActions.changeParamByIdentity([path, method], parameter, id);
      });
    }));
  };
  const setResponse = (original, system) => (path, method, response) => {
    const action = original(path, method, response);
    if (response.ok) fill(system, response.body);
    return action;
  };
  return { statePlugins: { spec: { wrapActions: { setResponse } } } };
}
